// pack_test.go: folders as archives.
package appliance

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"io"
	"os"
	"testing"
)

// zipFolder writes what is in the folder.
func zipFolder(to io.Writer, dir string) error {
	w := zip.NewWriter(to)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return w.Close()
}

// tarFolder is what is in the folder.
func tarFolder(t testing.TB, dir string) (packed io.Reader, size int64) {
	t.Helper()
	buf := new(bytes.Buffer)
	w := tar.NewWriter(buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf, int64(buf.Len())
}
