// warmup.go: TensorFlow Serving's recorded requests, a TFRecord file of PredictionLogs.
package savedmodel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/inference"
)

// WarmupFile has the recorded requests, by its path in the version folder.
const WarmupFile = "assets.extra/tf_serving_warmup_requests"

const (
	maxWarmupRecords = 1000      // TensorFlow Serving's
	maxWarmupRecord  = 256 << 20 // bytes
)

// EachWarmup calls f with each recorded request, counted from 1, until f returns an error; it does nothing where none are recorded.
// Recorded.Request is valid until f returns. Errors that are not f's are *inference.Error.
func EachWarmup(dir string, f func(n int, r inference.Recorded) error) error {
	path := filepath.Join(dir, WarmupFile)
	file, size, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "%v", err)
	}
	defer file.Close() //nolint:errcheck // only read
	return eachWarmup(file, size, path, f)
}

func eachWarmup(file io.Reader, size int64, path string, f func(n int, r inference.Recorded) error) error {
	var buf []byte
	for n := 1; size > 0; n++ {
		if n > maxWarmupRecords {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Number of warmup records exceeds the maximum (%d) at %s", maxWarmupRecords, path)
		}
		bad := func(format string, args ...any) error {
			return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "record %d of %s %s", n, WarmupFile, fmt.Sprintf(format, args...))
		}
		var head [12]byte
		if _, err := io.ReadFull(file, head[:]); err != nil {
			return bad("cannot be read: %v", err)
		}
		length := binary.LittleEndian.Uint64(head[:8])
		switch {
		case unmask(binary.LittleEndian.Uint32(head[8:])) != crc32.Checksum(head[:8], castagnoli):
			return bad("has a wrong checksum over its length; the file is no TFRecord file, or damaged")
		case length > maxWarmupRecord || int64(length)+16 > size:
			return bad("has %d bytes, and the file has %d left; at most %d are read", length, size-12, int64(maxWarmupRecord))
		}
		size -= int64(length) + 16
		if uint64(cap(buf)) < length+4 {
			buf = make([]byte, length+4)
		}
		buf = buf[:length+4]
		if _, err := io.ReadFull(file, buf); err != nil {
			return bad("cannot be read: %v", err)
		}
		if unmask(binary.LittleEndian.Uint32(buf[length:])) != crc32.Checksum(buf[:length], castagnoli) {
			return bad("has a wrong checksum; the file is damaged")
		}
		r, err := recordedIn(buf[:length])
		if err != nil {
			if e := (*inference.Error)(nil); errors.As(err, &e) {
				return err
			}
			return bad("is no PredictionLog: %v", err)
		}
		if err := f(n, r); err != nil {
			return err
		}
	}
	return nil
}

// unmask undoes what TFRecord does to checksums of data that may hold checksums.
func unmask(c uint32) uint32 {
	c -= 0xa282ead8
	return c>>17 | c<<15
}

// recordedIn is the request in a PredictionLog. Those of session_run_log and predict_streamed_log TensorFlow Serving does not make either.
func recordedIn(log []byte) (r inference.Recorded, err error) {
	err = eachBytes(log, func(num protowire.Number, b []byte) error {
		if num < 2 || num > 7 { // log_metadata and what is not known
			return nil
		}
		if kind := inference.RecordedKind(num); kind != r.Kind { // the last member of log_type counts, as in any oneof
			r = inference.Recorded{Kind: kind}
		}
		return eachBytes(b, func(num protowire.Number, b []byte) error {
			if num == 1 {
				r.Request = append(r.Request[:len(r.Request):len(r.Request)], b...) // parts of one message come together end to end
			}
			return nil
		})
	})
	if err != nil {
		return inference.Recorded{}, err
	}
	switch r.Kind {
	case inference.RecordedPredict, inference.RecordedClassify, inference.RecordedRegress, inference.RecordedMultiInference:
		return r, nil
	}
	return inference.Recorded{}, inference.Errorf(inference.Unimplemented, inference.ReasonModel, "Unsupported log_type for warmup: %d", r.Kind)
}

// eachBytes visits the length-delimited fields of a message.
func eachBytes(b []byte, f func(num protowire.Number, b []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
