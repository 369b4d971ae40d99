// backup_test.go: a file has a backup's name only when it is a whole one, whoever is killed.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/backup"
)

// small is a whole backup.
func small(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "runtime.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	s := backup.Source{Manifest: backup.Manifest{Inferd: "1"}, Files: []backup.NamedFile{{Name: backup.RuntimeName, Path: filepath.Join(dir, "runtime.json")}}}
	if err := backup.Make(t.Context(), &b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBackupFile(t *testing.T) {
	whole := small(t)
	gone := errors.New("the daemon was killed")
	for _, c := range []struct {
		name string
		take func(w io.Writer) error
		want error
	}{
		{"whole", func(w io.Writer) error { _, err := w.Write(whole); return err }, nil},
		{"cut off with an error", func(w io.Writer) error { _, _ = w.Write(whole[:len(whole)/2]); return gone }, gone},
		{"cut off without one", func(w io.Writer) error { _, err := w.Write(whole[:len(whole)-1]); return err }, backup.ErrArchive},
		{"something else", func(w io.Writer) error { _, err := io.WriteString(w, "hello"); return err }, backup.ErrArchive},
		{"nothing", func(io.Writer) error { return gone }, gone},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "b")
			if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, size, err := backupFile(path, c.take)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("%v", err)
			}
			got, want := "before", "before"
			if c.want == nil {
				want = string(whole)
			}
			if b, err := os.ReadFile(path); err != nil {
				t.Fatal(err)
			} else {
				got = string(b)
			}
			if got != want || err == nil && size != int64(len(whole)) {
				t.Errorf("%d bytes under its name, %d told", len(got), size)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("%v is left, %v", entries, err)
			}
		})
	}
}

// A client that is killed in the middle leaves the backup of before under its name.
func TestBackupClientKilled(t *testing.T) {
	dir, err := os.MkdirTemp("", "inferd") // a socket's path has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	whole := small(t)
	begun, ended := make(chan struct{}), make(chan struct{})
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(whole[:len(whole)/2])
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done() // it is gone
		close(ended)
	})}
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	path := filepath.Join(dir, "b")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), envBackup+"="+filepath.Join(dir, "s")+" "+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatal(cmd.ProcessState)
	}
	<-ended
	if b, err := os.ReadFile(path); err != nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
}

// envBackup has this process back up: "SOCKET FILE".
const envBackup = "INFERD_BACKUP_TEST"

// beBackup is that child's main program. It returns where this process is none.
func beBackup() {
	if words := strings.Fields(os.Getenv(envBackup)); len(words) == 2 {
		code := cli([]string{"inferd", "backup", words[1], "--address", words[0]}, os.Stdin, os.Stdout, os.Stderr)
		fmt.Fprintln(os.Stderr, "it should have been killed")
		os.Exit(code)
	}
}
