// manifest_test.go: manifests from outside, and folders that are not what theirs says.
package savedmodel

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func testKey(fill byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func TestCheckManifest(t *testing.T) {
	ours, theirs := testKey(1), testKey(2)
	trusting := Trust{Keys: []ed25519.PublicKey{public(testKey(3)), public(ours)}}
	requiring := Trust{Keys: trusting.Keys, Require: true}
	manifest := func(t *testing.T, dir string) []byte {
		m, err := MakeManifest(dir)
		if err != nil {
			t.Fatal(err)
		}
		return m.Encode()
	}
	put := func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, ManifestFile), manifest(t, dir)) }
	sign := func(t *testing.T, dir string, key ed25519.PrivateKey) {
		put(t, dir)
		writeFile(t, filepath.Join(dir, SignatureFile), []byte(base64.StdEncoding.EncodeToString(ed25519.Sign(key, manifest(t, dir)))+"\n"))
	}
	for _, tt := range []struct {
		name   string
		trust  Trust
		make   func(t *testing.T, dir string)
		signed bool
		want   string // of the error
		as     error
	}{
		{"none", Trust{}, func(*testing.T, string) {}, false, "", nil},
		{"good", Trust{}, put, false, "", nil},
		{"a file changed, as long as before", Trust{}, func(t *testing.T, dir string) {
			put(t, dir)
			b, err := os.ReadFile(filepath.Join(dir, "saved_model.pb"))
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1] ^= 1
			writeFile(t, filepath.Join(dir, "saved_model.pb"), b)
		}, false, "saved_model.pb has the SHA-256", ErrIncomplete},
		{"a file more", Trust{}, func(t *testing.T, dir string) { put(t, dir); writeFile(t, filepath.Join(dir, "assets", "x"), nil) }, false, "assets/x is not in its MANIFEST", ErrIncomplete},
		{"a file less", Trust{}, func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "assets", "x"), nil)
			put(t, dir)
			if err := os.Remove(filepath.Join(dir, "assets", "x")); err != nil {
				t.Fatal(err)
			}
		}, false, "assets/x is in its MANIFEST and not there", ErrIncomplete},
		{"not a manifest", Trust{}, func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, ManifestFile), []byte("Manifest-Version: 1.0\n"))
		}, false, "line 1 is not", ErrManifest},
		{"too large", Trust{}, func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, ManifestFile), nil)
			if err := os.Truncate(filepath.Join(dir, ManifestFile), maxManifest+1); err != nil {
				t.Fatal(err)
			}
		}, false, "at most", ErrManifest},
		{"signed", trusting, func(t *testing.T, dir string) { sign(t, dir, ours) }, true, "", nil},
		{"signed, as it must be", requiring, func(t *testing.T, dir string) { sign(t, dir, ours) }, true, "", nil},
		{"signed, and nobody is trusted", Trust{}, func(t *testing.T, dir string) { sign(t, dir, ours) }, false, "", nil},
		{"signed by somebody else", trusting, func(t *testing.T, dir string) { sign(t, dir, theirs) }, false, "none of the 2 signature_keys", ErrSignature},
		{"signed, and changed with its manifest", trusting, func(t *testing.T, dir string) {
			sign(t, dir, ours)
			writeFile(t, filepath.Join(dir, "assets", "x"), nil)
			put(t, dir)
		}, false, "none of the 2 signature_keys", ErrSignature},
		{"signed, and changed without its manifest", requiring, func(t *testing.T, dir string) {
			sign(t, dir, ours)
			writeFile(t, filepath.Join(dir, "variables", "variables.index"), nil)
		}, true, "variables/variables.index has the SHA-256", ErrIncomplete},
		{"no signature", requiring, put, false, "no MANIFEST.sig", ErrSignature},
		{"no manifest", requiring, func(*testing.T, string) {}, false, "no MANIFEST ", ErrSignature},
		{"not a signature", trusting, func(t *testing.T, dir string) {
			put(t, dir)
			writeFile(t, filepath.Join(dir, SignatureFile), []byte("x"))
		}, false, "is not the base64", ErrSignature},
		{"no signature where one is welcome", trusting, put, false, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := modeltest.Write(t, modeltest.HalfPlusTwo())
			tt.make(t, dir)
			signed, err := CheckManifest(dir, tt.trust)
			if signed != tt.signed || (err == nil) != (tt.want == "") {
				t.Fatalf("signed %v, %v", signed, err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.as)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestManifestIsSha256sums: the tool reads ours and we read the tool's, with names that need escaping.
func TestManifestIsSha256sums(t *testing.T) {
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("sha256sum is not on this machine")
	}
	dir := modeltest.Write(t, modeltest.HalfPlusTwo())
	for _, name := range []string{"a b", `back\slash`, "new\nline", " blank", "assets/ü"} {
		writeFile(t, filepath.Join(dir, name), []byte(name))
	}
	m, err := MakeManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command(tool, "--check", "--strict", "-")
	check.Dir, check.Stdin = dir, bytes.NewReader(m.Encode())
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	for _, flag := range []string{"--text", "--binary"} {
		sum := exec.Command("find", ".", "-type", "f", "-exec", tool, flag, "{}", "+")
		sum.Dir = dir
		out, err := sum.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseManifest(out); err != nil || !maps.Equal(got, m) {
			t.Errorf("%s: %v %v", flag, got, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	for _, s := range []string{"", sum + "  a\n", sum + " *./a/b\n", `\` + sum + `  a\\b\nc` + "\n", sum + "  ../a", sum + "  /a", sum + "  a\n" + sum + "  a\n", "x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Errorf("%v", err)
			}
			return
		}
		for name := range m {
			if !filepath.IsLocal(name) {
				t.Errorf("%q leads out", name)
			}
		}
		if again, err := ParseManifest(m.Encode()); err != nil || !maps.Equal(again, m) {
			t.Errorf("%v became %v, %v", m, again, err)
		}
	})
}
