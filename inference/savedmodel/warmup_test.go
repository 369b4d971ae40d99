// warmup_test.go: recorded requests from outside.
package savedmodel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	servingpb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"

	"github.com/inferd/inferd/inference"
)

// tfRecord is one record, written from the format's description and not with the reader's code.
func tfRecord(data []byte) []byte {
	sum := func(b []byte) uint32 {
		c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return (c>>15 | c<<17) + 0xa282ead8
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, sum(b))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, sum(data))
}

func predictLog(t testing.TB, signature string) []byte {
	t.Helper()
	b, err := proto.Marshal(&servingpb.PredictionLog{
		LogMetadata: &servingpb.LogMetadata{},
		LogType: &servingpb.PredictionLog_PredictLog{PredictLog: &servingpb.PredictLog{
			Request: &servingpb.PredictRequest{ModelSpec: &servingpb.ModelSpec{SignatureName: signature}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEachWarmup(t *testing.T) {
	session, err := proto.Marshal(&servingpb.PredictionLog{LogType: &servingpb.PredictionLog_SessionRunLog{SessionRunLog: &servingpb.SessionRunLog{}}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := tfRecord(predictLog(t, "a")), tfRecord(predictLog(t, "b"))
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	for _, tt := range []struct {
		name string
		file []byte
		seen string
		code inference.Code
		want string
	}{
		{"empty", nil, "", 0, ""},
		{"two", append(bytes.Clone(a), b...), "ab", 0, ""},
		{"the most", bytes.Repeat(a, 1000), strings.Repeat("a", 1000), 0, ""},
		{"one too many", bytes.Repeat(a, 1001), strings.Repeat("a", 1000), inference.InvalidArgument, "Number of warmup records exceeds the maximum (1000) at "},
		{"cut in the head", append(bytes.Clone(a), b[:5]...), "a", inference.FailedPrecondition, "record 2 of assets.extra/tf_serving_warmup_requests cannot be read"},
		{"cut in the data", a[:len(a)-5], "", inference.FailedPrecondition, "and the file has"},
		{"a wrong length", flip(a, 0), "", inference.FailedPrecondition, "wrong checksum over its length"},
		{"a wrong byte", flip(a, 13), "", inference.FailedPrecondition, "has a wrong checksum; "},
		{"a huge length", tfRecordHead(1 << 62), "", inference.FailedPrecondition, "at most"},
		{"no message", tfRecord([]byte{0xff}), "", inference.FailedPrecondition, "is no PredictionLog"},
		{"another kind", append(bytes.Clone(a), tfRecord(session)...), "a", inference.Unimplemented, "Unsupported log_type for warmup: 5"},
		{"no kind", tfRecord(nil), "", inference.Unimplemented, "Unsupported log_type for warmup: 0"},
	} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, WarmupFile), tt.file)
		seen := ""
		err := EachWarmup(dir, func(n int, got inference.Recorded) error {
			var r servingpb.PredictRequest
			if err := proto.Unmarshal(got.Request, &r); got.Kind != inference.RecordedPredict || err != nil || n != len(seen)+1 {
				t.Errorf("%s: %d %v", tt.name, n, err)
			}
			seen += r.GetModelSpec().GetSignatureName()
			return nil
		})
		if seen != tt.seen || (err == nil) != (tt.want == "") {
			t.Errorf("%s: saw %.20q, %v", tt.name, seen, err)
			continue
		}
		if e := (*inference.Error)(nil); err != nil && (!errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Msg, tt.want)) {
			t.Errorf("%s: %v, want %v %s", tt.name, err, tt.code, tt.want)
		}
	}
	if err := EachWarmup(t.TempDir(), nil); err != nil {
		t.Errorf("no file: %v", err)
	}
	stop, dir := errors.New("stop"), t.TempDir()
	writeFile(t, filepath.Join(dir, WarmupFile), append(bytes.Clone(a), b...))
	calls := 0
	if err := EachWarmup(dir, func(int, inference.Recorded) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// tfRecordHead is the beginning of a record of n bytes.
func tfRecordHead(n uint64) []byte {
	b := tfRecord(nil)[:0]
	b = binary.LittleEndian.AppendUint64(b, n)
	c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(b, (c>>15|c<<17)+0xa282ead8)
}

// TestWarmupKinds: each kind that TensorFlow Serving replays comes with its own request, and the last member of log_type counts.
func TestWarmupKinds(t *testing.T) {
	spec := &servingpb.ModelSpec{SignatureName: "s"}
	logs := []*servingpb.PredictionLog{
		{LogType: &servingpb.PredictionLog_ClassifyLog{ClassifyLog: &servingpb.ClassifyLog{Request: &servingpb.ClassificationRequest{ModelSpec: spec}}}},
		{LogType: &servingpb.PredictionLog_RegressLog{RegressLog: &servingpb.RegressLog{Request: &servingpb.RegressionRequest{ModelSpec: spec}}}},
		{LogType: &servingpb.PredictionLog_MultiInferenceLog{MultiInferenceLog: &servingpb.MultiInferenceLog{Request: &servingpb.MultiInferenceRequest{
			Tasks: []*servingpb.InferenceTask{{ModelSpec: spec}}}}}},
	}
	want := []inference.RecordedKind{inference.RecordedClassify, inference.RecordedRegress, inference.RecordedMultiInference, inference.RecordedPredict}
	var file, all []byte
	for _, log := range logs {
		b, err := proto.Marshal(log)
		if err != nil {
			t.Fatal(err)
		}
		file, all = append(file, tfRecord(b)...), append(all, b...)
	}
	file = append(file, tfRecord(append(all, predictLog(t, "s")...))...)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, WarmupFile), file)
	seen := 0
	if err := EachWarmup(dir, func(n int, r inference.Recorded) error {
		var err error
		switch n {
		case 1:
			err = proto.Unmarshal(r.Request, &servingpb.ClassificationRequest{})
		case 4:
			var p servingpb.PredictRequest
			if err = proto.Unmarshal(r.Request, &p); p.GetModelSpec().GetSignatureName() != "s" || len(r.Request) != 5 {
				t.Errorf("the last of four kinds has %q", r.Request)
			}
		}
		if seen++; r.Kind != want[n-1] || len(r.Request) == 0 || err != nil {
			t.Errorf("record %d: kind %d, %d bytes, %v", n, r.Kind, len(r.Request), err)
		}
		return nil
	}); err != nil || seen != 4 {
		t.Errorf("%d records, %v", seen, err)
	}
}

// TestEveryCutOfRecordsIsNoticed: only a file that ends behind a record passes.
func TestEveryCutOfRecordsIsNoticed(t *testing.T) {
	record := tfRecord(predictLog(t, "s"))
	file := bytes.Repeat(record, 3)
	for n := range len(file) + 1 {
		seen := 0
		err := eachWarmup(bytes.NewReader(file[:n]), int64(n), "path", func(int, inference.Recorded) error { seen++; return nil })
		if (err == nil) != (n%len(record) == 0) || seen != n/len(record) {
			t.Errorf("cut to %d of %d bytes: %d records, %v", n, len(file), seen, err)
		}
	}
}

func FuzzWarmup(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(tfRecord(predictLog(f, "a")), false)
	f.Add(predictLog(f, "a"), true)
	f.Add([]byte{0x32, 0x02, 0x0a, 0x00}, true)
	f.Fuzz(func(t *testing.T, b []byte, frame bool) {
		if frame {
			b = tfRecord(b) // past the checksums
		}
		last := 0
		err := eachWarmup(bytes.NewReader(b), int64(len(b)), "path", func(n int, r inference.Recorded) error {
			if n != last+1 || len(r.Request) > len(b) {
				t.Errorf("record %d after %d, %d bytes of %d", n, last, len(r.Request), len(b))
			}
			last = n
			return nil
		})
		if e := (*inference.Error)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("%v has no code", err)
		}
	})
}
