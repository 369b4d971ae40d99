// manifest.go: MANIFEST, the SHA-256 of every file of a version folder as sha256sum writes it, and MANIFEST.sig, who vouches for it.
package savedmodel

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files beside saved_model.pb. The manifest lists neither.
const (
	ManifestFile  = "MANIFEST"
	SignatureFile = "MANIFEST.sig" // base64 of the ed25519 signature over MANIFEST's bytes
)

const (
	maxManifest  = 16 << 20
	maxSignature = 4 << 10
)

// ErrManifest is wrapped by errors about a manifest that cannot be right however long one waits.
var ErrManifest = errors.New("MANIFEST is not good")

// ErrSignature is wrapped by errors about a signature that is wrong or missing.
var ErrSignature = errors.New("the version is not signed as the configuration demands")

// Manifest has the SHA-256 of files, by their slash-separated path in the version folder.
type Manifest map[string][sha256.Size]byte

// ParseManifest reads lines as sha256sum writes them, in its text and binary form and with escaped names.
func ParseManifest(b []byte) (Manifest, error) {
	m := make(Manifest)
	n := 0
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		n++
		line := strings.TrimSuffix(string(line), "\r")
		if line == "" {
			continue
		}
		bad := func(what string) error {
			return fmt.Errorf("%w: line %d %s; write it with: inferd sign, or find . -type f ! -name 'MANIFEST*' -exec sha256sum {} +", ErrManifest, n, what)
		}
		line, escaped := strings.CutPrefix(line, `\`)
		var sum [sha256.Size]byte
		if len(line) < 2*len(sum)+3 || line[2*len(sum)] != ' ' || line[2*len(sum)+1] != ' ' && line[2*len(sum)+1] != '*' {
			return nil, bad("is not a SHA-256, two blanks and a name")
		}
		if _, err := hex.Decode(sum[:], []byte(line[:2*len(sum)])); err != nil {
			return nil, bad("does not begin with a SHA-256")
		}
		name := line[2*len(sum)+2:]
		if escaped {
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
		}
		name = strings.TrimPrefix(name, "./")
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || name == "." {
			return nil, bad(fmt.Sprintf("names %q, which is no file inside the folder", name))
		}
		if _, twice := m[name]; twice {
			return nil, bad(fmt.Sprintf("names %q again", name))
		}
		if len(m) == maxTreeEntries {
			return nil, bad(fmt.Sprintf("comes after %d files", maxTreeEntries))
		}
		m[name] = sum
	}
	if len(m) == 0 {
		return nil, fmt.Errorf("%w: it lists no file", ErrManifest)
	}
	return m, nil
}

// Encode is the manifest as sha256sum writes it, sorted by name.
func (m Manifest) Encode() []byte {
	var b bytes.Buffer
	for _, name := range sortedNames(m) {
		sum := m[name]
		if escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name); escaped != name {
			name = escaped
			b.WriteByte('\\')
		}
		fmt.Fprintf(&b, "%x  %s\n", sum, name)
	}
	return b.Bytes()
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// MakeManifest reads every file of the folder.
func MakeManifest(dir string) (Manifest, error) {
	names, err := treeFiles(dir)
	if err != nil {
		return nil, err
	}
	m := make(Manifest, len(names))
	for _, name := range names {
		if m[name], err = sumFile(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// treeFiles has every file below dir but the manifest's own two, sorted. Links inside the folder count as the files that they lead to.
func treeFiles(dir string) (names []string, err error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	err = eachEntryBelow(root, func(rel string, e fs.DirEntry) error {
		if rel == ManifestFile || rel == SignatureFile {
			return nil
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			st, err := os.Stat(filepath.Join(root, rel))
			if err != nil {
				return err
			}
			isDir = st.IsDir() // of the folder itself: what lies in it is listed there
		}
		if !isDir {
			names = append(names, filepath.ToSlash(rel))
		}
		return nil
	})
	return names, err
}

func sumFile(path string) (sum [sha256.Size]byte, err error) {
	f, _, err := openFile(path)
	if err != nil {
		return sum, err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// readSmall reads a file of at most limit bytes; ok is false when there is none.
func readSmall(path string, limit int64) (b []byte, ok bool, err error) {
	f, size, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close() //nolint:errcheck // only read
	if size > limit {
		return nil, true, fmt.Errorf("%s has %d bytes, at most %d are read", filepath.Base(path), size, limit)
	}
	b, err = io.ReadAll(io.LimitReader(f, limit))
	return b, true, err
}

// Trust says what a version's manifest must fulfil.
type Trust struct {
	Keys    []ed25519.PublicKey // whose signatures count
	Require bool                // refuse what none of them has signed
}

// CheckManifest holds the folder's files against its MANIFEST, where there is one, and the signature over it. signed says that one of the
// trusted keys vouches for every file. What a copy under way may cure wraps [ErrIncomplete].
func CheckManifest(dir string, trust Trust) (signed bool, err error) {
	text, there, err := readSmall(filepath.Join(dir, ManifestFile), maxManifest)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if there {
		if signed, err = checkSignature(dir, text, trust); err != nil {
			return false, err
		}
	}
	switch {
	case trust.Require && !there:
		return false, fmt.Errorf("%w: it has no %s (%w); sign it with: inferd sign %s --key FILE", ErrSignature, ManifestFile, ErrIncomplete, quote(dir))
	case trust.Require && !signed:
		return false, fmt.Errorf("%w: it has no %s (%w); sign it with: inferd sign %s --key FILE", ErrSignature, SignatureFile, ErrIncomplete, quote(dir))
	case !there:
		return false, nil
	}
	m, err := ParseManifest(text)
	if err != nil {
		return false, fmt.Errorf("%w (%w)", err, ErrIncomplete) // it may have been cut off
	}
	return signed, m.check(dir)
}

// checkSignature is false without an error where nothing is signed, or nobody is trusted.
func checkSignature(dir string, manifest []byte, trust Trust) (bool, error) {
	text, there, err := readSmall(filepath.Join(dir, SignatureFile), maxSignature)
	switch {
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrSignature, err)
	case !there || len(trust.Keys) == 0:
		return false, nil
	}
	sig, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return false, fmt.Errorf("%w: %s is not the base64 of an ed25519 signature (%w)", ErrSignature, SignatureFile, ErrIncomplete)
	}
	for _, key := range trust.Keys {
		if ed25519.Verify(key, manifest, sig) {
			return true, nil
		}
	}
	return false, fmt.Errorf("%w: none of the %d signature_keys has signed its %s as it is (%w); sign it again, or configure the key of whoever did",
		ErrSignature, len(trust.Keys), ManifestFile, ErrIncomplete)
}

// check compares every file.
func (m Manifest) check(dir string) error {
	names, err := treeFiles(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, listed := m[name]; !listed {
			return fmt.Errorf("%w: %s is not in its %s", ErrIncomplete, name, ManifestFile)
		}
	}
	for _, name := range sortedNames(m) {
		if _, found := slices.BinarySearch(names, name); !found {
			return fmt.Errorf("%w: %s is in its %s and not there", ErrIncomplete, name, ManifestFile)
		}
		sum, err := sumFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if want := m[name]; sum != want {
			return fmt.Errorf("%w: %s has the SHA-256 %x, and its %s says %x", ErrIncomplete, name, sum[:8], ManifestFile, want[:8])
		}
	}
	return nil
}
