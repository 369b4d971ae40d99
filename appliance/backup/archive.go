// archive.go: the form of a backup, written and read.

// Package backup makes one file of what an inferd must not lose, and puts it back.
//
// Invariants:
//  1. An archive is a tar in zstd: backup.json first, sums.json, with the SHA-256 of every other member, last. One without it was cut off.
//  2. What is read is believed in nothing: names are known ones without a way out, kinds are files and folders, counts and sizes are bounded,
//     and nothing that was unpacked is used before every sum was right.
//  3. A restore replaces nothing before all of it lies checked and on disk beside what is there, and a note says what is to be moved. Cut off
//     before the note it has changed nothing; after it, [Complete] does the rest, which inferd does before it opens anything.
//  4. What a restore replaces is moved aside, never removed.
//
// No secret is in an archive: of tokens there are the hashes that are configured, and keys of certificates stay where they are.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/klauspost/compress/zstd"
)

// Format is the number of the form that is written.
const Format = 1

// The members of an archive. Those of a folder have its name before theirs.
const (
	manifestName = "backup.json"
	sumsName     = "sums.json"
	StateName    = "state.db"
	QueueName    = "queue.db"
	RuntimeName  = "runtime.json"
	configFolder = "config/"
	keptFolder   = "versions/"
)

// Limits on an archive that is read.
const (
	maxMembers  = 200_000
	maxName     = 1024
	maxManifest = 1 << 20
	maxSums     = 64 << 20
	maxMember   = 1 << 42 // the disk is the real bound
	maxSmall    = 8 << 20 // of a file of the configuration
	maxWindow   = 8 << 20 // of the compression, in memory
)

// ErrArchive: it is no whole backup. The text says what is wrong.
var ErrArchive = errors.New("not a whole backup of inferd's")

func wrongf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrArchive, fmt.Errorf(format, args...))
}

// Manifest says what an archive is.
type Manifest struct {
	Format     int       `json:"format"`
	Inferd     string    `json:"inferd"` // the version that made it
	Made       time.Time `json:"made"`
	StateDir   string    `json:"state_dir"`
	ConfigFile string    `json:"config_file,omitempty"` // config/inferd.yaml was read from there
	Versions   bool      `json:"versions"`              // kept versions are in it
}

// Member is one file, or folder, of an archive.
type Member struct {
	Name    string
	Size    int64
	Mode    fs.FileMode // permissions, and whether it is a folder
	Written time.Time
}

type digest struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// writer writes an archive.
type writer struct {
	zip  *zstd.Encoder
	tar  *tar.Writer
	sums map[string]digest
}

func newWriter(w io.Writer, m Manifest) (*writer, error) {
	zip, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	a := &writer{zip: zip, tar: tar.NewWriter(zip), sums: make(map[string]digest)}
	return a, a.addJSON(manifestName, m)
}

func (a *writer) addJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.add(Member{Name: name, Size: int64(len(b)), Mode: 0o600, Written: time.Unix(0, 0)}, bytes.NewReader(b))
}

// add writes a member of exactly its size.
func (a *writer) add(m Member, r io.Reader) error {
	h := &tar.Header{Name: m.Name, Size: m.Size, Mode: int64(m.Mode.Perm()), ModTime: m.Written, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if m.Mode.IsDir() {
		h.Name, h.Typeflag, h.Size = m.Name+"/", tar.TypeDir, 0
		return a.tar.WriteHeader(h)
	}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(a.tar, sum), io.LimitReader(r, m.Size))
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	if n != m.Size {
		return fmt.Errorf("%s: it had %d bytes, and %d when it was read: it changed meanwhile; try again", m.Name, m.Size, n)
	}
	a.sums[m.Name] = digest{hex.EncodeToString(sum.Sum(nil)), n}
	return nil
}

// close writes the sums, which make the archive whole.
func (a *writer) close() error {
	if err := a.addJSON(sumsName, a.sums); err != nil {
		return err
	}
	return errors.Join(a.tar.Close(), a.zip.Close())
}

// Read reads an archive to its end and gives every member but backup.json and sums.json to visit, which need not read it. What visit was given is
// good only when Read returns nil; the error is ErrArchive where the archive is wrong, and visit's own where that fails.
func Read(r io.Reader, visit func(Member, io.Reader) error) (Manifest, error) {
	zip, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return Manifest{}, err
	}
	defer zip.Close()
	m, err := readTar(zip, visit)
	if err == nil {
		if n, e := io.Copy(io.Discard, io.LimitReader(zip, 1<<20)); n > 0 || e != nil {
			err = wrongf("something follows its end")
		}
	}
	return m, err
}

func readTar(r io.Reader, visit func(Member, io.Reader) error) (m Manifest, err error) {
	t := tar.NewReader(r)
	found, seen := make(map[string]digest), make(map[string]bool)
	var sums map[string]digest
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, wrongf("%w", err)
		}
		member, err := memberOf(h)
		switch {
		case err != nil:
			return m, err
		case first != (member.Name == manifestName):
			return m, wrongf("it does not begin with %s, or has it twice", manifestName)
		case sums != nil:
			return m, wrongf("%q follows %s", member.Name, sumsName)
		case seen[member.Name]:
			return m, wrongf("%q is in it twice", member.Name)
		case len(seen) == maxMembers:
			return m, wrongf("it has more than %d members", maxMembers)
		}
		seen[member.Name] = true
		switch {
		case member.Name == sumsName:
			if err := readJSON(t, member, maxSums, &sums); err != nil {
				return m, err
			}
			if sums == nil {
				return m, wrongf("%s is empty", sumsName)
			}
			continue
		case member.Mode.IsDir():
			if err := visit(member, bytes.NewReader(nil)); err != nil {
				return m, err
			}
			continue
		}
		body := &summed{r: t, sum: sha256.New()}
		if first {
			if err := readJSON(body, member, maxManifest, &m); err != nil {
				return m, err
			}
			if m.Format != Format {
				return m, wrongf("its form is number %d, and this inferd knows %d; it was made by inferd %.40q, use that one", m.Format, Format, m.Inferd)
			}
		} else if err := visit(member, body); err != nil {
			return m, err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return m, wrongf("%q: %w", member.Name, err)
		}
		found[member.Name] = digest{hex.EncodeToString(body.sum.Sum(nil)), body.n}
	}
	if sums == nil {
		return m, wrongf("it was cut off: %s, its last member, is missing", sumsName)
	}
	for name, want := range sums {
		if got, ok := found[name]; !ok {
			return m, wrongf("%.200q is missing", name)
		} else if got != want {
			return m, wrongf("%.200q is not what was written: its SHA-256 is %s and should be %.80s", name, got.SHA256, want.SHA256)
		}
	}
	if len(sums) != len(found) {
		return m, wrongf("it has members that %s does not name", sumsName)
	}
	return m, nil
}

// summed is a reader that sums up what is read of it.
type summed struct {
	r   io.Reader
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
	n int64
}

func (s *summed) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	_, _ = s.sum.Write(b[:n]) // it never fails
	s.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = wrongf("%w", err) // of the archive, not of where it goes
	}
	return n, err
}

func readJSON(r io.Reader, m Member, limit int64, v any) error {
	if m.Size > limit || m.Mode.IsDir() {
		return wrongf("%s has %d bytes, at most %d are read", m.Name, m.Size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(r, limit))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return wrongf("%s: %w", m.Name, err)
	}
	return nil
}

// memberOf is what a header says, if that may be in an archive.
func memberOf(h *tar.Header) (Member, error) {
	m := Member{Name: h.Name, Size: h.Size, Mode: fs.FileMode(h.Mode) & fs.ModePerm, Written: h.ModTime}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		m.Name, m.Mode, m.Size = strings.TrimSuffix(h.Name, "/"), m.Mode|fs.ModeDir, 0
	default:
		return m, wrongf("%.200q is neither a file nor a folder", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return m, wrongf("%.200q has holes", h.Name)
		}
	}
	switch {
	case !known(m.Name, m.Mode.IsDir()):
		return m, wrongf("%.200q does not belong in it", h.Name)
	case m.Size < 0 || m.Size > maxMember || strings.HasPrefix(m.Name, configFolder) && m.Size > maxSmall:
		return m, wrongf("%.200q has %d bytes", h.Name, m.Size)
	}
	return m, nil
}

// known reports whether a member may have the name.
func known(name string, folder bool) bool {
	if len(name) > maxName || path.Clean(name) != name || strings.ContainsRune(name, '\\') ||
		strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
		return false
	}
	switch name {
	case manifestName, sumsName, StateName, QueueName, RuntimeName:
		return !folder
	}
	if rest, ok := strings.CutPrefix(name, configFolder); ok {
		dir, file := path.Split(rest)
		return !folder && file != "" && file[0] != '.' && (dir == "" || dir == "conf.d/")
	}
	rest, ok := strings.CutPrefix(name, keptFolder)
	return ok && rest != "" && rest != ".." && !strings.HasPrefix(rest, "../") // clean: it has none further on
}
