// pages_test.go: files whose pages are not what they should be, which bbolt would end the process for.
package storage

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// pageFile is a queue's file with all kinds of pages.
func pageFile(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "queue.db")
	q, err := OpenQueue(path, QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		add(t, q, job("m"), string(noise(900)))
	}
	for _, l := range lease(t, q, "m", 20) {
		finish(t, q, l.ID, "result")
	}
	size := int64(0)
	if err := q.view(func(x *tx) error { size = x.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data[:size] // the rest is room
}

// TestDamagedPages: whichever page's head is overwritten or zeroed, opening the queue either works or moves the file aside; this process
// goes on.
func TestDamagedPages(t *testing.T) {
	t.Parallel()
	data := pageFile(t)
	path := filepath.Join(t.TempDir(), "queue.db")
	moved := 0
	for at := 0; at < len(data); at += os.Getpagesize() {
		for _, with := range [][]byte{make([]byte, 512), bytes.Repeat([]byte{0xff}, 16), {0, 0, 0, 0, 0, 0, 0, 0, 1, 0}} {
			bad := bytes.Clone(data)
			copy(bad[at:], with)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			q, err := OpenQueue(path, QueueOptions{})
			if err != nil {
				t.Fatal(err)
			}
			add(t, q, job("m"), "goes on") // which writes the other meta page anew
			clean(t, q)
			if aside := q.Damaged(); aside != "" {
				moved++
				if err := os.Remove(aside); err != nil {
					t.Error(err)
				}
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	t.Logf("%d pages: %d times the file was moved aside", len(data)/os.Getpagesize(), moved)
	if moved < 50 {
		t.Error("too seldom: the test tests little")
	}
}

// FuzzPages: whatever bytes lie anywhere in the file, the queue opens, with it or without, and takes a job. This process goes on.
func FuzzPages(f *testing.F) {
	data := pageFile(f)
	f.Add(uint32(os.Getpagesize()*5), []byte{1, 2, 3})
	f.Add(uint32(os.Getpagesize()*7+16), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(uint32(0), make([]byte, 80))
	path := filepath.Join(f.TempDir(), "queue.db")
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		bad := bytes.Clone(data)
		copy(bad[int(at)%len(bad):], patch)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		q, err := OpenQueue(path, QueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = q.Check(t.Context()) // it may find what is wrong, and must come back
		add(t, q, job("m"), "goes on")
		aside := q.Damaged()
		if err := q.Close(); err != nil && aside == "" {
			t.Error(err)
		}
		if aside != "" {
			_ = os.Remove(aside)
		}
	})
}
