// queuenote.go: small values that the queue's owner keeps beside its jobs.
package storage

import (
	"context"
	"fmt"
)

// maxNote bounds a note.
const maxNote = 4096

func noteKey(name string) []byte { return []byte("note:" + name) }

// Note is what SetNote stored under the name; nil when nothing was, or when it cannot be read any more.
func (q *Queue) Note(name string) ([]byte, error) {
	var value []byte
	err := q.view(func(x *tx) error {
		key := noteKey(name)
		value = nil
		if b := x.Bucket(bucketMeta).Get(key); b != nil {
			if v, err := unsealed(key, b); err == nil {
				value = append([]byte{}, v...)
			}
		}
		return nil
	})
	return value, err
}

// SetNote stores a value under a name, and returns once it is on disk.
func (q *Queue) SetNote(ctx context.Context, name string, value []byte) error {
	if len(value) > maxNote {
		return fmt.Errorf("%w: a note of %d bytes, and it may have %d", ErrTooLarge, len(value), maxNote)
	}
	return q.update(ctx, int64(len(value)), func(x *tx) error {
		key := noteKey(name)
		return try(x.Bucket(bucketMeta).Put(key, seal(key, value)))
	}, nil)
}
