// newer_test.go: an inferd that finds files of a newer one does not start on them, and says in a sentence what to do.
package appliance

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/inferd/inferd/storage"
)

func TestDowngradeIsRefused(t *testing.T) {
	for _, name := range []string{stateFile, queueFile} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, nil)
			if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(cfg.StateDir, name)
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Update(func(tx *bbolt.Tx) error {
				meta, err := tx.CreateBucket([]byte("meta"))
				if err != nil {
					return err
				}
				return errors.Join(meta.Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, 99)), meta.Put([]byte("writer"), []byte("9.1.0")))
			}); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			a, err := New(cfg, Options{Version: "test"})
			if err != nil {
				t.Fatal(err)
			}
			err = a.Run(t.Context())
			if !errors.Is(err, storage.ErrNewer) {
				t.Fatalf("it ended with %v", err)
			}
			for _, words := range []string{path, "written by a newer inferd 9.1.0 (schema 99, this one knows 1)", "install inferd 9.1.0 again", "inferd restore"} {
				if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q is not in: %v", words, err)
				}
			}
		})
	}
}
