// backup_test.go: what is made can be read, what is not whole or leads elsewhere cannot, and a restore is all or nothing.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/inferd/inferd/storage"
)

// envChild has this process restore: "STATE_DIR ARCHIVE POINT", and end at the point.
const envChild = "BACKUP_CHILD"

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(envChild)); len(words) > 0 {
		f, err := os.Open(words[1])
		if err == nil {
			_, err = Restore(context.Background(), f, Options{StateDir: words[0], Now: time.Now(), Step: func(point string) {
				if strings.ReplaceAll(point, " ", "-") == words[2] {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			}})
		}
		fmt.Fprintln(os.Stderr, "it should have ended:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var made = time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)

// world is a state directory with a state, a queue with jobs of the given payloads, kept versions and a configuration.
func world(t testing.TB, dir, word string) {
	t.Helper()
	db, err := storage.Open(filepath.Join(dir, StateName), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.State().Record("m", []byte(word)), db.Close()); err != nil {
		t.Fatal(err)
	}
	q, err := storage.OpenQueue(filepath.Join(dir, QueueName), storage.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := q.Append(t.Context(), storage.Item{Model: "m", Kind: 1, Submitted: made}, []byte(word)); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"versions/m/1/saved_model.pb": word, "etc/inferd.yaml": "# " + word, "etc/conf.d/1.yaml": "# " + word, "etc/tokens.yaml": "# " + word} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(text), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "versions/m/1/empty"), 0o750); err != nil {
		t.Fatal(err)
	}
}

// says is what the state, the queue and the kept version of a directory say.
func says(t testing.TB, dir string) string {
	t.Helper()
	db, err := storage.Open(filepath.Join(dir, StateName), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	states, err := db.State().States()
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	q, err := storage.OpenQueue(filepath.Join(dir, QueueName), storage.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var jobs []string
	items, err := q.List(storage.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		payload, _, err := q.Payload(it.ID)
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, string(payload))
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "versions/m/1/saved_model.pb"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s %s", states["m"], strings.Join(jobs, "+"), kept)
}

func source(t testing.TB, dir string) Source {
	t.Helper()
	s := Source{Manifest: Manifest{Inferd: "1.0.0", Made: made, StateDir: dir, ConfigFile: filepath.Join(dir, "etc/inferd.yaml")}, Versions: filepath.Join(dir, "versions")}
	var err, err2 error
	s.State, err = storage.SnapshotFile(filepath.Join(dir, StateName), dir)
	s.Queue, err2 = storage.SnapshotFile(filepath.Join(dir, QueueName), dir)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	s.Files = []NamedFile{{ConfigName("/etc/inferd.yaml", false), filepath.Join(dir, "etc/inferd.yaml")}, {ConfigName("/x/1.yaml", true), filepath.Join(dir, "etc/conf.d/1.yaml")},
		{ConfigName("tokens.yaml", false), filepath.Join(dir, "etc/tokens.yaml")}, {RuntimeName, filepath.Join(dir, "not there")}}
	return s
}

func archive(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Make(t.Context(), &b, source(t, dir)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMakeAndRead(t *testing.T) {
	dir := t.TempDir()
	world(t, dir, "old")
	var names []string
	m, err := Read(bytes.NewReader(archive(t, dir)), func(m Member, r io.Reader) error {
		names = append(names, m.Name)
		return nil
	})
	if err != nil || m.Inferd != "1.0.0" || !m.Made.Equal(made) || !m.Versions {
		t.Fatalf("%+v, %v", m, err)
	}
	slices.Sort(names)
	want := []string{"config/conf.d/1.yaml", "config/inferd.yaml", "config/tokens.yaml", "queue.db", "state.db", "versions/m", "versions/m/1", "versions/m/1/empty", "versions/m/1/saved_model.pb"}
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

func TestRestore(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	world(t, from, "old")
	world(t, to, "new")
	b := archive(t, from)
	if err := os.WriteFile(filepath.Join(to, "queue.db.schema-1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{StateDir: to, Now: made}
	done, err := Restore(t.Context(), bytes.NewReader(b), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := says(t, to); got != "old old old" {
		t.Errorf("restored: %s", got)
	}
	aside := filepath.Join(to, "before-restore-20261126T080000Z")
	if got := says(t, aside); got != "new new new" || done.Aside != aside {
		t.Errorf("aside: %s, in %s", got, done.Aside)
	}
	if !slices.Equal(done.Moved, []string{"queue.db", "queue.db.schema-1", "state.db", "versions"}) || done.Jobs.Compared || done.Jobs.Waiting != 1 || len(done.Left) != 3 || len(done.Config) != 0 {
		t.Errorf("%+v", done)
	}
	for _, name := range []string{stagingName, noteName, "queue.db.schema-1"} {
		if _, err := os.Lstat(filepath.Join(to, name)); !os.IsNotExist(err) {
			t.Errorf("%s is left", name)
		}
	}
	if text, err := os.ReadFile(filepath.Join(to, "etc/inferd.yaml")); err != nil || string(text) != "# new" {
		t.Errorf("the configuration was touched: %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(to, "versions/m/1/empty")); err != nil {
		t.Error(err)
	}

	// The configuration too, into an empty machine and into one that has another.
	for _, state := range []string{filepath.Join(t.TempDir(), "state"), to} {
		o = Options{StateDir: state, Now: made.Add(time.Hour), ConfigFile: filepath.Join(to, "etc/other.yaml")}
		if done, err = Restore(t.Context(), bytes.NewReader(b), o); err != nil {
			t.Fatal(err)
		}
		if got := says(t, state); got != "old old old" {
			t.Errorf("restored: %s", got)
		}
		o.ConfigFile = ""
	}
	if text, err := os.ReadFile(filepath.Join(to, "etc/other.yaml")); err != nil || string(text) != "# old" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "etc/conf.d/1.yaml.before-restore-20261126T090000Z")); err != nil || string(text) != "# new" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	world(t, from, "old")
	world(t, to, "new")
	whole := archive(t, from)
	damaged := func(name string) []byte {
		s := source(t, from)
		f, err := os.Create(filepath.Join(from, "damaged"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write(make([]byte, 1<<16))
		_, _ = f.Seek(0, io.SeekStart)
		if name == StateName {
			s.State = f
		} else {
			s.Queue = f
		}
		var b bytes.Buffer
		if err := Make(t.Context(), &b, s); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "not a whole backup"},
		{"something else", []byte("hello, world, this is no archive"), "not a whole backup"},
		{"cut in the middle", whole[:len(whole)/2], "not a whole backup"},
		{"cut at the end", whole[:len(whole)-10], "not a whole backup"},
		{"a damaged state", damaged(StateName), "state.db: the file is damaged"},
		{"a damaged queue", damaged(QueueName), "queue.db: the file is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Restore(t.Context(), bytes.NewReader(c.data), Options{StateDir: to, Now: made}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if got := says(t, to); got != "new new new" {
				t.Errorf("it has become %s", got)
			}
			entries, err := os.ReadDir(to)
			if err != nil || len(entries) != 4 {
				t.Errorf("%v is left, %v", entries, err)
			}
		})
	}
	t.Run("a running inferd", func(t *testing.T) {
		for _, open := range []func() (io.Closer, error){
			func() (io.Closer, error) { return storage.Open(filepath.Join(to, StateName), storage.Options{}) },
			func() (io.Closer, error) {
				return storage.OpenQueue(filepath.Join(to, QueueName), storage.QueueOptions{})
			},
		} {
			db, err := open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), bytes.NewReader(whole), Options{StateDir: to, Now: made}); !errors.Is(err, storage.ErrLocked) {
				t.Errorf("%v", err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Cut off with kill -9 anywhere, a restore has changed nothing or is completed by whoever comes next.
func TestRestoreKilled(t *testing.T) {
	from := t.TempDir()
	world(t, from, "old")
	file := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(file, archive(t, from), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{"unpacked", "noted", "aside-queue.db", "put-queue.db", "aside-state.db", "put-state.db", "aside-versions", "put-versions"} {
		t.Run(point, func(t *testing.T) {
			to := t.TempDir()
			world(t, to, "new")
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), envChild+"="+to+" "+file+" "+point)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%v: %s", err, out)
			}
			if _, err := Complete(to); err != nil {
				t.Fatal(err)
			}
			want := "old old old"
			if point == "unpacked" {
				want = "new new new"
			}
			if got := says(t, to); got != want {
				t.Errorf("%s, not %s", got, want)
			}
			if point != "unpacked" {
				aside, err := filepath.Glob(filepath.Join(to, asidePrefix+"*"))
				if err != nil || len(aside) != 1 || says(t, aside[0]) != "new new new" {
					t.Errorf("aside: %q, %v", aside, err)
				}
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if _, err := Restore(t.Context(), f, Options{StateDir: to, Now: made}); err != nil {
				t.Fatalf("once more: %v", err)
			}
			if got := says(t, to); got != "old old old" {
				t.Errorf("once more: %s", got)
			}
		})
	}
}

func TestCompleteBelievesNoNote(t *testing.T) {
	for _, text := range []string{"", "{", `{"aside": "../x", "put": ["state.db"]}`, `{"aside": "before-restore-/../../x", "put": ["state.db"]}`, `{"aside": "before-restore-1", "put": ["../x"]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, noteName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Complete(dir); err == nil {
			t.Errorf("%s: it is believed", text)
		}
	}
}

// tarOf is a tar of members as they are, true or not; a nil text makes what the header says.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o600
		}
		text := h.Uname // carried there by the tests
		h.Uname = ""
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil && h.Size > 0 {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadBelievesNothing(t *testing.T) {
	manifest := tar.Header{Name: manifestName, Uname: `{"format": 1}`}
	for _, c := range []struct {
		name    string
		headers []tar.Header
		want    string
	}{
		{"a way out", []tar.Header{manifest, {Name: "versions/../../etc/passwd", Uname: "x"}}, "does not belong"},
		{"a way out of nothing", []tar.Header{manifest, {Name: "versions/..", Typeflag: tar.TypeDir}}, "does not belong"},
		{"an absolute path", []tar.Header{manifest, {Name: "/etc/passwd", Uname: "x"}}, "does not belong"},
		{"a path that is not clean", []tar.Header{manifest, {Name: "versions//m", Uname: "x"}}, "does not belong"},
		{"an unknown name", []tar.Header{manifest, {Name: "lives.json", Uname: "x"}}, "does not belong"},
		{"a hidden configuration", []tar.Header{manifest, {Name: "config/.profile", Uname: "x"}}, "does not belong"},
		{"a deep configuration", []tar.Header{manifest, {Name: "config/a/b.yaml", Uname: "x"}}, "does not belong"},
		{"a control character", []tar.Header{manifest, {Name: "versions/a\nb", Uname: "x"}}, "does not belong"},
		{"a link", []tar.Header{manifest, {Name: "versions/m", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}, "neither a file nor a folder"},
		{"a hard link", []tar.Header{manifest, {Name: "state.db", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}, "neither a file nor a folder"},
		{"a device", []tar.Header{manifest, {Name: "versions/m", Typeflag: tar.TypeChar}}, "neither a file nor a folder"},
		{"a folder for a file", []tar.Header{manifest, {Name: "state.db/", Typeflag: tar.TypeDir}}, "does not belong"},
		{"a member twice", []tar.Header{manifest, {Name: "state.db", Uname: "x"}, {Name: "state.db", Uname: "y"}}, "twice"},
		{"no manifest", []tar.Header{{Name: "state.db", Uname: "x"}}, "does not begin with"},
		{"two manifests", []tar.Header{manifest, manifest}, "does not begin with"},
		{"another form", []tar.Header{{Name: manifestName, Uname: `{"format": 2, "inferd": "9.0"}`}}, "made by inferd \"9.0\""},
		{"no sums", []tar.Header{manifest}, "cut off"},
		{"other sums", []tar.Header{manifest, {Name: sumsName, Uname: `{"backup.json": {"sha256": "00", "bytes": 13}}`}}, "is not what was written"},
		{"sums of what is not there", []tar.Header{manifest, {Name: sumsName, Uname: `{"queue.db": {}}`}}, "is missing"},
		{"sums that leave out", []tar.Header{manifest, {Name: sumsName, Uname: `{}`}}, "does not name"},
		{"null for sums", []tar.Header{manifest, {Name: sumsName, Uname: `null`}}, "is empty"},
		{"something behind", []tar.Header{manifest, {Name: sumsName, Uname: `{}`}, {Name: "state.db", Uname: "x"}}, "follows"},
		{"a large configuration", []tar.Header{manifest, {Name: "config/a.yaml", Uname: strings.Repeat("x", maxSmall+1)}}, "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := tarOf(t, c.headers...)
			_, err := readTar(bytes.NewReader(b), func(m Member, r io.Reader) error {
				_, err := io.Copy(io.Discard, r)
				return err
			})
			if !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// FuzzRead: whatever comes, it ends with an error or with members that may be unpacked, in no more than was declared.
func FuzzRead(f *testing.F) {
	sums, _ := json.Marshal(map[string]digest{})
	f.Add(tarOf(f, tar.Header{Name: manifestName, Uname: `{"format": 1}`}, tar.Header{Name: "versions/m", Typeflag: tar.TypeDir}, tar.Header{Name: sumsName, Uname: string(sums)}))
	f.Add(tarOf(f, tar.Header{Name: manifestName, Uname: `{"format": 1}`}, tar.Header{Name: "config/conf.d/a.yaml", Uname: "log: {}"}))
	dir := f.TempDir()
	world(f, dir, "w")
	s := source(f, dir)
	_, _ = s.State.Close(), s.Queue.Close()
	s.State, s.Queue = nil, nil
	var b bytes.Buffer
	if err := Make(f.Context(), &b, s); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	zip, err := zstd.NewReader(&b)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, data []byte) {
		seen := make(map[string]bool)
		visit := func(m Member, r io.Reader) error {
			if !filepath.IsLocal(m.Name) || seen[m.Name] || m.Size < 0 || m.Name == manifestName || m.Name == sumsName {
				t.Fatalf("member %q of %d bytes", m.Name, m.Size)
			}
			seen[m.Name] = true
			n, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			if n > m.Size {
				t.Fatalf("member %q has %d bytes more than it should", m.Name, n-m.Size)
			}
			return err
		}
		for _, read := range []func(io.Reader, func(Member, io.Reader) error) (Manifest, error){Read, readTar} {
			clear(seen)
			if m, err := read(bytes.NewReader(data), visit); err == nil && m.Format != Format {
				t.Fatalf("format %d is accepted", m.Format)
			}
		}
		_, _ = readNote(bytes.NewReader(data))
	})
}
