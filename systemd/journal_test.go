// journal_test.go: records against a socket that reads as journald does.
package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// journald listens at a path and decodes.
type journald struct {
	t    testing.TB
	conn *net.UnixConn
	path string
}

func listenJournal(t testing.TB, path string) *journald {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &journald{t, conn, path}
}

// next is the next record's fields, read out of its datagram or of the sealed file that came in place of one.
func (j *journald) next() map[string]string {
	j.t.Helper()
	b, oob := make([]byte, 1<<20), make([]byte, 1024)
	n, m, _, _, err := j.conn.ReadMsgUnix(b, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	b = b[:n]
	if m > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil {
			j.t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			j.t.Fatal(err)
		}
		defer unix.Close(fds[0])
		const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		if got, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0); err != nil || got != seals {
			j.t.Errorf("the file is not sealed: %x, %v", got, err) // journald takes no other
		}
		var st unix.Stat_t
		if err := unix.Fstat(fds[0], &st); err != nil {
			j.t.Fatal(err)
		}
		b = make([]byte, st.Size)
		if _, err := unix.Pread(fds[0], b, 0); err != nil {
			j.t.Fatal(err)
		}
	}
	fields, err := decodeRecord(b)
	if err != nil {
		j.t.Fatalf("%v in %q", err, b)
	}
	return fields
}

// decodeRecord reads the wire form as journald does, and refuses what it would drop.
func decodeRecord(b []byte) (map[string]string, error) {
	fields := make(map[string]string)
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return nil, errors.New("no newline at the end")
		}
		name, value, inline := bytes.Cut(line, []byte("="))
		if !inline {
			if len(rest) < 8 {
				return nil, errors.New("no length")
			}
			n := binary.LittleEndian.Uint64(rest)
			if n >= uint64(len(rest)-8) || rest[8+n] != '\n' {
				return nil, fmt.Errorf("length %d of %d", n, len(rest)-8)
			}
			value, rest = rest[8:8+n], rest[8+n+1:]
		}
		if len(name) == 0 || len(name) > 64 || name[0] == '_' || name[0] >= '0' && name[0] <= '9' ||
			strings.Trim(string(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return nil, fmt.Errorf("name %q", name)
		}
		if _, twice := fields[string(name)]; !twice { // the journal keeps both; the first is who we say it is
			fields[string(name)] = string(value)
		}
		b = rest
	}
	return fields, nil
}

func TestJournalRecords(t *testing.T) {
	d := listenJournal(t, filepath.Join(t.TempDir(), "j"))
	j, err := DialJournal(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	long := strings.Repeat("ä", MaxFieldBytes) // twice as many bytes
	for name, c := range map[string]struct {
		send []Field
		want map[string]string
	}{
		"plain":           {[]Field{{"PRIORITY", "6"}, {"MESSAGE", "published"}, {"model", "m"}}, map[string]string{"PRIORITY": "6", "MESSAGE": "published", "MODEL": "m"}},
		"equals sign":     {[]Field{{"MESSAGE", "a=b=c"}}, map[string]string{"MESSAGE": "a=b=c"}},
		"newlines":        {[]Field{{"MESSAGE", "one\ntwo\nPRIORITY=0\n"}, {"X", "y"}}, map[string]string{"MESSAGE": "one\ntwo\nPRIORITY=0\n", "X": "y"}},
		"empty value":     {[]Field{{"MESSAGE", ""}}, map[string]string{"MESSAGE": ""}},
		"mended names":    {[]Field{{"_pid", "1"}, {"9lives", "2"}, {"a.b\nPRIORITY=0", "3"}, {"ä", "4"}, {"", "5"}}, map[string]string{"PID": "1", "LIVES": "2", "A_B_PRIORITY_0": "3"}},
		"cut":             {[]Field{{"MESSAGE", long}}, map[string]string{"MESSAGE": long[:MaxFieldBytes], "TRUNCATED": "MESSAGE"}},
		"not half a rune": {[]Field{{"MESSAGE", "x" + long}}, map[string]string{"MESSAGE": "x" + long[:MaxFieldBytes-2], "TRUNCATED": "MESSAGE"}},
	} {
		t.Run(name, func(t *testing.T) {
			d.t = t
			if err := j.Send(c.send); err != nil {
				t.Fatal(err)
			}
			got := d.next()
			if len(got) != len(c.want) {
				t.Errorf("%d fields: %.300q", len(got), got)
			}
			for k, v := range c.want {
				if got[k] != v {
					t.Errorf("%s is %.100q (%d bytes), want %.100q (%d bytes)", k, got[k], len(got[k]), v, len(v))
				}
			}
		})
	}
	d.t = t
	many := slices.Repeat([]Field{{"A", strings.Repeat("x", 40<<10)}}, MaxFields+5)
	if err := j.Send(many); err != nil { // 2.5 MiB, which no datagram holds
		t.Fatal(err)
	}
	if got := d.next(); got["TRUNCATED"] != "fields" || len(got["A"]) != 40<<10 {
		t.Errorf("of %d fields came %q, the first with %d bytes", len(many), got["TRUNCATED"], len(got["A"]))
	}
}

// TestJournalThatTakesNothing: whoever logs goes on, and is told later how much was lost.
func TestJournalThatTakesNothing(t *testing.T) {
	d := listenJournal(t, filepath.Join(t.TempDir(), "j"))
	j, err := DialJournal(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	sent := 0
	for err == nil {
		if err = j.Send([]Field{{"MESSAGE", "x"}}); err == nil {
			sent++
		}
	}
	if !errors.Is(err, ErrJournalFull) || sent == 0 {
		t.Fatalf("after %d records: %v", sent, err)
	}
	for range 2 {
		if err := j.Send([]Field{{"MESSAGE", "x"}}); !errors.Is(err, ErrJournalFull) {
			t.Fatal(err)
		}
	}
	for range sent {
		d.next()
	}
	for _, lost := range []string{"3", ""} {
		if err := j.Send([]Field{{"MESSAGE", "after"}}); err != nil {
			t.Fatal(err)
		}
		if got := d.next(); got["MESSAGE"] != "after" || got["LOST"] != lost {
			t.Errorf("got %q, want LOST=%s", got, lost)
		}
	}
}

func TestJournalComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	if _, err := DialJournal(path); err == nil {
		t.Error("a journal was opened where there is none")
	}
	d := listenJournal(t, path)
	j, err := DialJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	d.conn.Close()
	for _, gone := range []func() error{func() error { return nil }, func() error { return os.Remove(path) }} {
		if err := gone(); err != nil {
			t.Fatal(err)
		}
		if err := j.Send([]Field{{"MESSAGE", "nobody"}}); err == nil || errors.Is(err, ErrJournalFull) {
			t.Errorf("no journal is there, and Send returns %v", err)
		}
	}
	d = listenJournal(t, path)
	if err := j.Send([]Field{{"MESSAGE", "again"}}); err != nil {
		t.Fatal(err)
	}
	if got := d.next(); got["MESSAGE"] != "again" {
		t.Errorf("got %q", got)
	}
}

func FuzzJournalRecord(f *testing.F) {
	f.Add("MODEL", "m", "err", "one\ntwo")
	f.Add("_a", "\n", "", "x=y")
	f.Add("9", "\x00\xff", "a=b\nc", "")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		got, err := decodeRecord(encodeRecord([]Field{{name1, value1}, {name2, value2}}))
		if err != nil {
			t.Fatal(err)
		}
		if name := FieldName(name1); name != "" && len(value1) <= MaxFieldBytes && got[name] != value1 {
			t.Errorf("%s is %q, want %q", name, got[name], value1)
		}
	})
}
