// tfrecord_test.go: what is written is read, and what is cut off or damaged ends a file.
package savedmodel

import (
	"bytes"
	"errors"
	"testing"

	"github.com/inferd/inferd/inference"
)

func TestRecordsAreRead(t *testing.T) {
	log := []byte("\x32\x04\x0a\x02\x12\x00") // predict_log.request.inputs
	var file []byte
	for range 3 {
		file = AppendRecord(file, log)
	}
	n := 0
	if err := eachWarmup(bytes.NewReader(file), int64(len(file)), "f", func(_ int, r inference.Recorded) error {
		n++
		if r.Kind != inference.RecordedPredict || string(r.Request) != "\x12\x00" {
			t.Errorf("%+v", r)
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%d records, %v", n, err)
	}
	one := int64(len(file) / 3)
	for cut := range file {
		bytesOf, records := WholeRecords(bytes.NewReader(file[:cut]), 1<<20)
		if bytesOf != int64(cut)/one*one || int64(records) != int64(cut)/one {
			t.Errorf("%d records in %d bytes of %d", records, bytesOf, cut)
		}
	}
	if _, records := WholeRecords(bytes.NewReader(file), len(log)-1); records != 0 {
		t.Errorf("%d records that are too large", records)
	}
}

// FuzzWholeRecords: what counts as whole is what the reader of warm-ups reads.
func FuzzWholeRecords(f *testing.F) {
	f.Add(AppendRecord(AppendRecord(nil, []byte("\x32\x02\x0a\x00")), []byte("\x32\x00")), 3)
	f.Add(AppendRecord(nil, nil), 0)
	f.Fuzz(func(t *testing.T, file []byte, flip int) {
		if flip >= 0 && flip < len(file) {
			file = bytes.Clone(file)
			file[flip] ^= 1
		}
		size, records := WholeRecords(bytes.NewReader(file), 1<<16)
		if size > int64(len(file)) || size < int64(records)*recordFrame {
			t.Fatalf("%d records in %d bytes of %d", records, size, len(file))
		}
		n, stop := 0, errors.New("enough")
		err := eachWarmup(bytes.NewReader(file[:size]), size, "f", func(int, inference.Recorded) error {
			if n++; n > records {
				return stop
			}
			return nil
		})
		var bad *inference.Error
		if err != nil && (!errors.As(err, &bad) || bytes.Contains([]byte(bad.Msg), []byte("checksum")) || bytes.Contains([]byte(bad.Msg), []byte("has "))) && records <= maxWarmupRecords {
			t.Fatalf("%d whole records, and the reader says %v", records, err)
		}
	})
}
