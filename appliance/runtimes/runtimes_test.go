// runtimes_test.go: runtimes that lie side by side, and wheels that are no good; the good one is the pinned one, where it is there.
package runtimes

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wheel writes a zip with those members.
func wheel(t testing.TB, members ...string) Wheel {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i+1 < len(members); i += 2 {
		w, err := z.Create(members[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(members[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	w := Wheel{filepath.Join(t.TempDir(), "w.whl"), hex.EncodeToString(sum[:])}
	if err := os.WriteFile(w.Path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestInstallRefuses(t *testing.T) {
	const metadata, library = "tensorflow_cpu-2.20.0.dist-info/METADATA", "tensorflow/libtensorflow_cc.so.2"
	for _, c := range []struct {
		name    string
		members []string
		spoil   func(w *Wheel)
		want    string
	}{
		{"another sum", []string{metadata, "", library, "x"}, func(w *Wheel) { w.SHA256 = strings.Repeat("0", 64) }, "is wanted: it is another file, or a damaged one; nothing was installed"},
		{"no file", nil, func(w *Wheel) { w.Path += "x" }, "no such file"},
		{"no zip", nil, func(w *Wheel) {
			_ = os.WriteFile(w.Path, []byte("x"), 0o600)
			sum := sha256.Sum256([]byte("x"))
			w.SHA256 = hex.EncodeToString(sum[:])
		}, "is no wheel"},
		{"no version", []string{library, "x"}, nil, "does not say which version"},
		{"a version that leads elsewhere", []string{"t-2..%2f.dist-info/METADATA", "", library, "x"}, nil, "does not say which version"},
		{"two versions", []string{metadata, "", "x-1.0.dist-info/METADATA", "", library, "x"}, nil, "twice"},
		{"no library", []string{metadata, "", "tensorflow/__init__.py", "x", "../libtensorflow_cc.so.2", "x"}, nil, "has no libtensorflow_cc.so"},
		{"a library twice", []string{metadata, "", library, "x", library, "y"}, nil, "two of its name"},
		{"a library that is none", []string{metadata, "", library, "x"}, nil, "cannot be used here and is not installed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wheel(t, c.members...)
			if c.spoil != nil {
				c.spoil(&w)
			}
			p := Places{Package: t.TempDir(), State: t.TempDir()}
			if _, err := p.Install(t.Context(), w, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if left, err := os.ReadDir(filepath.Join(p.State, fetchedName)); len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// The pinned wheel, as `make runtime` fetches it, becomes a runtime, once.
func TestInstallPinned(t *testing.T) {
	pin, err := Pinned()
	if err != nil {
		t.Skip(err)
	}
	found, err := filepath.Glob(filepath.Join("..", "..", "build", "wheels", strings.ReplaceAll(pin.Package, "-", "_")+"-"+pin.Version+"-*.whl"))
	if err != nil || len(found) != 1 {
		t.Skip("the pinned wheel is not in build/wheels; `make runtime` fetches it")
	}
	p := Places{Package: t.TempDir(), State: t.TempDir()}
	// As `inferd runtime install` does: pip fetches it, from the directory that is the only place it may look at.
	home, err := filepath.Abs(filepath.Dir(found[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", home)
	wrong := pin
	wrong.SHA256 = strings.Repeat("0", 64)
	if _, err := Fetch(t.Context(), wrong, t.TempDir(), io.Discard); err == nil {
		t.Error("pip brought a wheel with another sum")
	}
	var said strings.Builder
	w, err := Fetch(t.Context(), pin, t.TempDir(), &said)
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	no := errors.New("it aborts")
	checked := ""
	r, err := p.Install(t.Context(), w, func(_ context.Context, library string) error {
		checked = library
		return nil
	})
	if err != nil || r.Version != pin.Version || r.From != FromFetched || filepath.Base(checked) != "libtensorflow_cc.so.2" {
		t.Fatalf("%+v, %q checked, %v", r, checked, err)
	}
	if again, err := p.Install(t.Context(), w, func(context.Context, string) error { return no }); err != nil || again != r {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if _, err := p.Choose(pin.Version, "me"); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(pin.Version, ""); err == nil || !strings.Contains(err.Error(), "is the chosen one") {
		t.Errorf("the chosen one: %v", err)
	}
	if err := os.Remove(filepath.Join(p.State, choiceName)); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(pin.Version, r.Library); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("the one in use: %v", err)
	}
	if err := p.Remove(pin.Version, ""); err != nil {
		t.Error(err)
	}
	if list, err := p.List(); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestListAndOrder(t *testing.T) {
	p := Places{Package: t.TempDir(), State: t.TempDir()}
	for _, dir := range []string{filepath.Join(p.Package, "2.9.0"), filepath.Join(p.Package, "2.20.0"), filepath.Join(p.State, fetchedName, "2.20.0"),
		filepath.Join(p.State, fetchedName, ".installing-2.21.0"), filepath.Join(p.State, fetchedName, "lost+found")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list, err := p.List()
	if err != nil || len(list) != 3 || list[0].Version != "2.20.0" || list[0].From != FromFetched || list[1].From != FromPackage || list[2].Version != "2.9.0" || list[0].Fault == "" {
		t.Errorf("%+v, %v", list, err)
	}
	if good, refused, err := p.Order(); err != nil || len(good) != 0 || len(refused) != 3 {
		t.Errorf("%v, %v, %v", good, refused, err)
	}
	if _, err := p.Choose("2.9.0", ""); err == nil || !strings.Contains(err.Error(), "has no libtensorflow_cc.so.2") {
		t.Errorf("%v", err)
	}
	for version, want := range map[string]string{"2.9.0": "is a package's; remove the package", "3.0": "there is no runtime 3.0", "../x": "is no version"} {
		if err := p.Remove(version, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("remove %s: %v", version, err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.State, choiceName), []byte(`{"version": "../x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Choice(); err == nil || !strings.Contains(err.Error(), "writes it anew") {
		t.Errorf("%v", err)
	}
}

func FuzzWheel(f *testing.F) {
	for _, members := range [][]string{{"a-1.0.dist-info/METADATA", "", "tensorflow/libtensorflow_cc.so.2", "x"}, {"tensorflow.libs/../x", "y"}} {
		b, err := os.ReadFile(wheel(f, members...).Path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		version, members, err := contents(z)
		if err != nil {
			return
		}
		if ValidVersion(version) != nil || len(members) == 0 {
			t.Fatalf("version %q, %d members", version, len(members))
		}
		seen := make(map[string]bool)
		for _, m := range members {
			name := filepath.Base(m.Name)
			if !filepath.IsLocal(name) || seen[name] || m.UncompressedSize64 > maxUnpacked {
				t.Fatalf("member %q", m.Name)
			}
			seen[name] = true
		}
	})
}
