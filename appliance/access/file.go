// file.go: tokens.yaml: how it is read, and how it is written by `inferd token`.
package access

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// DefaultFile is where `inferd token` keeps the tokens when the configuration names no file.
const DefaultFile = "/etc/inferd/tokens.yaml"

// Limits of the file.
const (
	MaxFileBytes = 1 << 20
	MaxTokens    = 4096
)

const heading = `# tokens.yaml: who may use the ports of inferd. Made by "inferd token add", "list" and "remove", and read again by itself when it changes.
# sha256 is the sum of the token, which itself is kept nowhere: one that is lost is removed and made anew.
`

// entry is a token in the file.
type entry struct {
	Name    string    `yaml:"name"`
	Sum     string    `yaml:"sha256"`
	Scopes  []string  `yaml:"scopes,flow"`
	Models  []string  `yaml:"models,flow,omitempty"`
	Created time.Time `yaml:"created,omitempty"`
	Expires time.Time `yaml:"expires,omitempty"`
}

type document struct {
	Tokens []entry `yaml:"tokens"`
}

// Parse reads the bytes of a tokens file. name is used in messages, which have no part of a sum. The first fault is the error.
func Parse(name string, data []byte) ([]Token, error) {
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes, which no tokens file is", name, MaxFileBytes)
	}
	var doc document
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s is no tokens file%s; `inferd token` writes it", name, lineOf(err)) // what yaml quotes may be anything
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s has more than one document", name)
	}
	if len(doc.Tokens) > MaxTokens {
		return nil, fmt.Errorf("%s has %d tokens, at most %d are possible", name, len(doc.Tokens), MaxTokens)
	}
	tokens := make([]Token, len(doc.Tokens))
	names, sums := make(map[string]bool), make(map[[sha256.Size]byte]string)
	for i, e := range doc.Tokens {
		t := &tokens[i]
		t.Name, t.Models, t.Created, t.Expires = e.Name, e.Models, e.Created.UTC(), e.Expires.UTC()
		where := fmt.Sprintf("%s: token %d", name, i+1)
		if goodName(e.Name) {
			where = fmt.Sprintf("%s: token %s", name, e.Name)
		}
		sum, err := hex.DecodeString(e.Sum)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("%s: sha256 is not 64 hexadecimal digits", where)
		}
		copy(t.Sum[:], sum)
		for _, word := range e.Scopes {
			s, err := ParseScope(word)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			t.Scopes |= s
		}
		if err := t.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if names[t.Name] {
			return nil, fmt.Errorf("%s is there twice", where)
		}
		if other, twice := sums[t.Sum]; twice {
			return nil, fmt.Errorf("%s has the same sha256 as %s", where, other)
		}
		names[t.Name], sums[t.Sum] = true, t.Name
	}
	return tokens, nil
}

// lineOf is where yaml found the fault, without what stands there.
func lineOf(err error) string {
	text := err.Error()
	var many *yaml.TypeError
	if errors.As(err, &many) && len(many.Errors) > 0 {
		text = many.Errors[0]
	}
	line := 0
	for _, form := range []string{"yaml: line %d:", "line %d:"} {
		if n, _ := fmt.Sscanf(text, form, &line); n == 1 {
			return fmt.Sprintf(", from line %d on", line)
		}
	}
	return ""
}

// Format is a file of these tokens.
func Format(tokens []Token) ([]byte, error) {
	doc := document{Tokens: make([]entry, len(tokens))}
	for i := range tokens {
		t := &tokens[i]
		doc.Tokens[i] = entry{Name: t.Name, Sum: hex.EncodeToString(t.Sum[:]), Scopes: t.Scopes.Words(), Models: t.Models, Created: t.Created, Expires: t.Expires}
	}
	var out bytes.Buffer
	out.WriteString(heading)
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	if out.Len() > MaxFileBytes {
		return nil, fmt.Errorf("the tokens would take more than %d bytes; remove some", MaxFileBytes)
	}
	return out.Bytes(), enc.Close()
}

// ReadFile reads a tokens file. One that is not there is an error that wraps [fs.ErrNotExist]; one that every user may write into is refused, for
// then anybody on the machine could let himself in.
func ReadFile(path string) ([]Token, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case st.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("%s may be written by every user of this machine, so it counts for nothing; chmod o-w it, and look at who is in it", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Change has edit change the tokens of the file and writes them back, whole or not at all, while no other Change of the same file runs. A file that
// is not there is one without tokens; it is made with mode 0640 and, where this user may give it away, the group that its directory's readers need.
func Change(path, group string, edit func([]Token) ([]Token, error)) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil { // ends with the descriptor
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	tokens, err := ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if tokens, err = edit(tokens); err != nil {
		return err
	}
	if len(tokens) > MaxTokens {
		return fmt.Errorf("%s has %d tokens, which is as many as are possible; remove one", path, MaxTokens)
	}
	data, err := Format(tokens)
	if err != nil {
		return err
	}
	return replace(path, group, data)
}

// replace puts a new file in the place of the old one, with the old one's owner and mode.
func replace(path, group string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tokens-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	mode, uid, gid := fs.FileMode(0o640), -1, groupID(group)
	if st, serr := os.Stat(path); serr == nil {
		mode = st.Mode().Perm()
		uid, gid = owner(st)
	}
	if _, err = f.Write(data); err != nil {
		return err
	}
	if cerr := f.Chown(uid, gid); cerr != nil && os.Geteuid() == 0 { // others can give files to their own groups only
		return cerr
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return f.Close()
}
