// warmup_test.go: recorded requests, replayed before a version serves.
package updater

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

// recordRequests writes requests, which fakeDecode reads, into dir.
func recordRequests(t *testing.T, dir string, requests ...string) {
	t.Helper()
	sum := func(b []byte) uint32 {
		c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return (c>>15 | c<<17) + 0xa282ead8
	}
	var file []byte
	for _, r := range requests {
		log := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(r))
		log = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), log)
		n := len(file)
		file = binary.LittleEndian.AppendUint64(file, uint64(len(log)))
		file = binary.LittleEndian.AppendUint32(file, sum(file[n:]))
		file = append(file, log...)
		file = binary.LittleEndian.AppendUint32(file, sum(log))
	}
	path := filepath.Join(dir, savedmodel.WarmupFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fakeDecode takes "SIGNATURE TYPE": one row of that type.
func fakeDecode(r inference.Recorded, signatures map[string]*inference.Signature) ([]*inference.Request, error) {
	key, kind, _ := strings.Cut(string(r.Request), " ")
	sig := signatures[key]
	if sig == nil {
		return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "Serving signature key %q not found.", key)
	}
	d := tensor.Float
	if kind == "double" {
		d = tensor.Double
	}
	t, err := tensor.New(d, tensor.Shape{3}, make([]byte, 3*d.Size()))
	return []*inference.Request{{Signature: sig, Inputs: []*tensor.Tensor{t}, Outputs: []int{0}}}, err
}

func TestProve(t *testing.T) {
	isRecorded := func(run *inference.Run) bool { return rows(run) == 3 }
	recordedGives := func(value float32) func(context.Context, *inference.Run) (*inference.Result, error) {
		return func(_ context.Context, run *inference.Run) (*inference.Result, error) {
			if isRecorded(run) {
				return answerWith(run, value), nil
			}
			return answer(run), nil
		}
	}
	onlyRecorded := func(_ context.Context, run *inference.Run) (*inference.Result, error) {
		if isRecorded(run) {
			return answer(run), nil
		}
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "not for made-up ones")
	}
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name     string
		requests []string
		run      func(context.Context, *inference.Run) (*inference.Result, error)
		allowNaN bool
		recorded int    // of signature s
		unproven string // part of Proof.Unproven
		warning  string
		err      string
		code     inference.Code
	}{
		{name: "none recorded"},
		{name: "two", requests: []string{"s float", "s float"}, recorded: 2},
		{name: "made-up inputs are no good, and none are recorded", run: onlyRecorded, unproven: "not for made-up ones"},
		{name: "made-up inputs are no good, the recorded ones are", requests: []string{"s float", "u float"}, run: onlyRecorded, recorded: 1},
		{name: "made-up inputs are no good, and one signature has nothing recorded", requests: []string{"s float"}, run: onlyRecorded, recorded: 1, unproven: `signature "u"`},
		{name: "a signature that is not there", requests: []string{"s float", "gone float"}, err: `recorded request 2 of assets.extra/tf_serving_warmup_requests: `, code: inference.FailedPrecondition},
		{name: "another type", requests: []string{"s double"}, err: "Expects arg[0] to be float but double is provided", code: inference.InvalidArgument},
		{name: "a run that fails", requests: []string{"s float"}, run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
			if isRecorded(run) {
				return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "no good")
			}
			return answer(run), nil
		}, err: "recorded request 1 of", code: inference.InvalidArgument},
		{name: "NaN", requests: []string{"s float"}, run: recordedGives(nan), err: `output "y" is NaN; if that is right, write nan: warn`, code: inference.FailedPrecondition},
		{name: "infinity", requests: []string{"s float"}, run: recordedGives(float32(math.Inf(1))), err: `output "y" is infinite`, code: inference.FailedPrecondition},
		{name: "NaN that is allowed", requests: []string{"s float", "s float"}, run: recordedGives(nan), allowNaN: true, recorded: 2,
			warning: `signature "s": output "y" is NaN on recorded request 1`},
		{name: "NaN on made-up inputs alone", requests: []string{"s float"}, recorded: 1, warning: `signature "s": output "y" is NaN on made-up inputs`,
			run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
				if isRecorded(run) {
					return answer(run), nil
				}
				return answerWith(run, nan), nil
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.requests != nil {
				recordRequests(t, dir, tt.requests...)
			}
			run := tt.run
			if run == nil {
				run = recordedGives(1)
			}
			cand := Candidate{Dir: dir, Model: Model{AllowNaN: tt.allowNaN},
				Info: &savedmodel.Info{Signatures: signatures(signature("s", true, tensor.Float, -1), signature("u", true, tensor.Float, -1))}}
			p, err := Prove(t.Context(), &scripted{run: run}, cand, ProbeOptions{MaxBatch: 1}, Decode{Recorded: fakeDecode})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || code(err) != tt.code {
					t.Errorf("got %v, want %v %s", err, tt.code, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Signatures["s"].Recorded != tt.recorded || (p.Unproven == "") != (tt.unproven == "") || !strings.Contains(p.Unproven, tt.unproven) {
				t.Errorf("%+v", p)
			}
			if got := strings.Join(p.Warnings(), "; "); !strings.Contains(got, tt.warning) || (tt.warning == "") != (got == "") {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

func TestProveTimes(t *testing.T) {
	dir := t.TempDir()
	recordRequests(t, dir, "s float", "s float", "s float")
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		r := &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
			if calls++; calls == 2 {
				time.Sleep(time.Second)
			}
			return answer(run), nil
		}}
		p, err := Prove(t.Context(), r, Candidate{Dir: dir, Info: &savedmodel.Info{Signatures: signatures(signature("s", false, tensor.Float, 3))}}, ProbeOptions{}, Decode{Recorded: fakeDecode})
		if err != nil || p.Signatures["s"].Slowest != time.Second || p.Signatures["s"].Recorded != 3 {
			t.Errorf("%+v %v", p, err)
		}
	})
}

// TestRecordedRequestRefuses: the version that serves goes on when the next one fails a recorded request.
func TestRecordedRequestRefuses(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Decode = Decode{Recorded: fakeDecode}
		put(t, w.sub(1), "")
		recordRequests(t, w.sub(1), inference.DefaultSignature+" float")
	}, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		if v, _ := w.model().Version(1); v.Proof.Signatures[inference.DefaultSignature].Recorded != 1 {
			t.Errorf("%+v", v.Proof)
		}
		put(t, w.sub(2), "")
		recordRequests(t, w.sub(2), inference.DefaultSignature+" float", "gone float")
		w.pass(time.Minute)
		w.wantLive(1)
		if v, _ := w.model().Version(2); v.State != StateQuarantined || !strings.Contains(v.Reason, `recorded request 2 of assets.extra/tf_serving_warmup_requests: `) {
			t.Errorf("%v %q", v.State, v.Reason)
		}
	})
}
