// reqlog_test.go: what is kept, in what form, within which bounds, and what a disk that fails costs.
package reqlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	model = &inference.Version{Model: "m", Number: 3}
	half  = &inference.Signature{Key: "serving_default", Inputs: []inference.TensorInfo{{Alias: "x"}}, Outputs: []inference.TensorInfo{{Alias: "y"}, {Alias: "z"}}}
)

func floats(v ...float32) *tensor.Tensor {
	t := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{int64(len(v))}}
	for _, f := range v {
		b := math.Float32bits(f)
		t.Data = append(t.Data, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
	}
	return t
}

func texts(v ...string) *tensor.Tensor {
	t := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{int64(len(v))}}
	for _, s := range v {
		t.Strings = append(t.Strings, []byte(s))
	}
	return t
}

// predicted is x -> z.
func predicted(x float32) (*inference.Request, *inference.Response) {
	return &inference.Request{Signature: half, Inputs: []*tensor.Tensor{floats(x)}, Outputs: []int{1}}, inference.NewResponse([]*tensor.Tensor{floats(x / 2)}, nil)
}

func (l *Log) put(n int) {
	for i := range n {
		if l.Wants(model) {
			req, resp := predicted(float32(i))
			l.Keep(model, req, resp, nil, 5*time.Millisecond)
		}
	}
}

// with runs f beside a running log, in a bubble's time, and returns when everything is written.
func with(t *testing.T, o Options, f func(l *Log)) Stats {
	t.Helper()
	l := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	f(l)
	synctest.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return l.Stats()
}

func always(r Rule) func(string) Rule {
	if r.Rate == 0 {
		r.Rate = 1
	}
	return func(string) Rule { return r }
}

// files of the model, by name.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "m", "*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// records reads a TFRecord file as a version's warm-up.
func records(t *testing.T, name string) []inference.Recorded {
	t.Helper()
	dir := t.TempDir()
	to := filepath.Join(dir, savedmodel.WarmupFile)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []inference.Recorded
	err = savedmodel.EachWarmup(dir, func(_ int, r inference.Recorded) error {
		all = append(all, inference.Recorded{Kind: r.Kind, Request: bytes.Clone(r.Request)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPredictionLog(t *testing.T) {
	req, resp := predicted(3)
	c := call{at: time.Unix(1000, 0), v: model, req: req, resp: resp}
	read := func() *pb.PredictionLog {
		t.Helper()
		var log pb.PredictionLog
		b := c.tfrecord(0.25)
		if err := proto.Unmarshal(b[12:len(b)-4], &log); err != nil {
			t.Fatal(err)
		}
		return &log
	}
	log := read()
	if m := log.GetLogMetadata(); m.GetTimestampSecs() != 1000 || m.GetSamplingConfig().GetSamplingRate() != 0.25 || m.GetModelSpec().GetVersion().GetValue() != 3 {
		t.Errorf("%v", m)
	}
	p := log.GetPredictLog()
	if s := p.GetRequest().GetModelSpec(); s.GetName() != "m" || s.GetSignatureName() != "serving_default" {
		t.Errorf("%v", s)
	}
	in, out := p.GetRequest().GetInputs()["x"], p.GetResponse().GetOutputs()["z"]
	if !bytes.Equal(in.GetTensorContent(), floats(3).Data) || !bytes.Equal(out.GetTensorContent(), floats(1.5).Data) || len(p.GetResponse().GetOutputs()) != 1 || in.GetTensorShape().GetDim()[0].GetSize() != 1 {
		t.Errorf("%v", p)
	}

	// Examples are kept as they were sent, also those that are no messages.
	sig := &inference.Signature{Key: "c", Inputs: []inference.TensorInfo{{Alias: "inputs"}}, Outputs: []inference.TensorInfo{{Alias: "classes"}, {Alias: "scores"}}}
	c.req = &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{texts("", "\n\x00")}, Outputs: []int{0, 1}, As: inference.RecordedClassify}
	labels, scores := texts("a", "b"), floats(0.5, 0.25)
	labels.Shape, scores.Shape = tensor.Shape{2, 1}, tensor.Shape{2, 1}
	c.resp = inference.NewResponse([]*tensor.Tensor{labels, scores}, nil)
	if l := read().GetClassifyLog(); len(l.GetRequest().GetInput().GetExampleList().GetExamples()) != 2 || l.GetRequest().GetModelSpec().GetSignatureName() != "c" ||
		l.GetResponse().GetResult().GetClassifications()[1].GetClasses()[0].GetLabel() != "b" || l.GetResponse().GetResult().GetClassifications()[0].GetClasses()[0].GetScore() != 0.5 {
		t.Errorf("%v", l)
	}
	sig.Outputs = []inference.TensorInfo{{Alias: "outputs"}}
	c.req.Outputs, c.req.As = []int{0}, inference.RecordedRegress
	c.resp = inference.NewResponse([]*tensor.Tensor{floats(4, 5)}, nil)
	if l := read().GetRegressLog(); len(l.GetRequest().GetInput().GetExampleList().GetExamples()) != 2 || l.GetResponse().GetResult().GetRegressions()[1].GetValue() != 5 {
		t.Errorf("%v", l)
	}
}

func TestLines(t *testing.T) {
	req, resp := predicted(3)
	c := call{at: time.Unix(1000, 0), v: model, req: req, resp: resp, took: 7 * time.Millisecond}
	const plain = `{"time":"1970-01-01T00:16:40Z","model":"m","version":3,"signature":"serving_default","method":"predict","rows":1,"took_us":7000,"code":"OK",` +
		`"inputs":{"x":{"dtype":"float","shape":[1],"bytes":4}},"outputs":{"z":{"dtype":"float","shape":[1],"bytes":4}}}` + "\n"
	if got := string(c.json(false)); got != plain {
		t.Errorf("%s\nwant %s", got, plain)
	}
	var l line
	if err := json.Unmarshal(c.json(true), &l); err != nil || !bytes.Equal(l.Inputs["x"].Content, floats(3).Data) || !bytes.Equal(l.Outputs["z"].Content, floats(1.5).Data) {
		t.Errorf("%+v, %v", l, err)
	}
	// A request that failed has no outputs, and may be refused for its very inputs. Its error may repeat them, so it is a payload too.
	c.resp, c.err = nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "secret %s", strings.Repeat("x", 2*maxError))
	c.req = &inference.Request{Signature: half, Inputs: []*tensor.Tensor{nil, texts("secret")}, As: inference.RecordedRegress}
	if got := string(c.json(false)); strings.Contains(got, "secret") || !strings.Contains(got, `"method":"regress","took_us":7000,"code":"INVALID_ARGUMENT","reason":"input","inputs":{}}`) {
		t.Errorf("%s", got)
	}
	if got := string(c.json(true)); !strings.Contains(got, `"error":"secret xxx`) || len(got) > 2*maxError {
		t.Errorf("%s", got)
	}
}

func TestATFRecordFileIsAWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := with(t, Options{Dir: dir, Rule: always(Rule{Format: TFRecord})}, func(l *Log) {
			for range 5 { // more than one warm-up may have
				l.put(500)
				synctest.Wait()
			}
			req, _ := predicted(1)
			l.Keep(model, req, nil, inference.Errorf(inference.Internal, "", "no answer"), 0) // it would refuse the version
		})
		list := files(t, dir)
		if len(list) != 3 || s.Written != 2500 {
			t.Fatalf("%d files, %+v", len(list), s)
		}
		for i, want := range []int{1000, 1000, 500} {
			all := records(t, list[i])
			if len(all) != want || all[0].Kind != inference.RecordedPredict {
				t.Errorf("%s has %d records", list[i], len(all))
			}
			if info, err := os.Stat(list[i]); err != nil || info.Mode().Perm() != 0o600 || filepath.Ext(list[i]) != ".tfrecord" {
				t.Errorf("%s: %v, %v", list[i], info.Mode(), err)
			}
		}
	})
}

func TestFilesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		with(t, Options{Dir: dir, Rule: always(Rule{}), FileBytes: 1000, FileAge: time.Minute, MaxAge: 10 * time.Minute}, func(l *Log) {
			l.put(1)
			time.Sleep(2 * time.Second)
			if list := files(t, dir); len(list) != 1 || !strings.HasSuffix(list[0], ".jsonl.part") {
				t.Errorf("while it is written: %v", list)
			} else if b, err := os.ReadFile(list[0]); err != nil || bytes.Count(b, []byte("\n")) != 1 {
				t.Errorf("it was not flushed: %q, %v", b, err)
			}
			time.Sleep(2 * time.Minute)
			if list := files(t, dir); len(list) != 1 || !strings.HasSuffix(list[0], ".jsonl") {
				t.Errorf("of age: %v", list)
			}
			l.put(9)
			synctest.Wait()
			if list := files(t, dir); len(list) != 4 { // the old one, two of four records, and what is being written
				t.Errorf("too large: %v", list)
			}
			time.Sleep(10*time.Minute + time.Second)
			if list := files(t, dir); len(list) != 1 {
				t.Errorf("old ones are not removed: %v", list)
			}
			time.Sleep(3 * time.Minute)
			if list := files(t, dir); len(list) != 0 {
				t.Errorf("old ones are not removed: %v", list)
			}
		})
	})
}

func TestBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := with(t, Options{Dir: dir, Rule: always(Rule{Payloads: true}), FileBytes: 2000, MaxBytes: 10_000}, func(l *Log) {
			for i := range 500 {
				v := &inference.Version{Model: fmt.Sprint("m", i%7), Number: 1} // several models share the bound
				req, resp := predicted(1)
				l.Keep(v, req, resp, nil, 0)
				synctest.Wait()
				if n := l.Stats().Bytes; n > 10_000 {
					t.Fatalf("%d bytes after %d records", n, i)
				}
			}
		})
		var onDisk int64
		err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			onDisk += info.Size()
			return err
		})
		if err != nil || onDisk != s.Bytes || onDisk < 5000 || s.Written != 500 {
			t.Errorf("%d bytes lie there, %+v, %v", onDisk, s, err)
		}
		s = with(t, Options{Dir: filepath.Join(dir, "small"), Rule: always(Rule{Payloads: true}), FileBytes: 100, MaxBytes: 100}, func(l *Log) { l.put(1) })
		if s.Dropped[Full] != 1 {
			t.Errorf("a record larger than all files: %+v", s)
		}
	})
}

// TestNeverInTheWay: nobody writes, and nobody who keeps waits; what lies in memory is bounded.
func TestNeverInTheWay(t *testing.T) {
	l := New(Options{Dir: t.TempDir(), Rule: always(Rule{Payloads: true})})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { l.put(maxQueued) })
	}
	all.Wait()
	if s := l.Stats(); s.Dropped[Behind] != 7*maxQueued {
		t.Errorf("%+v", s)
	}
	large := New(Options{Dir: t.TempDir(), Rule: always(Rule{Format: TFRecord})})
	req, resp := predicted(1)
	req.Inputs[0].Data = make([]byte, maxRecord/2)
	for range 100 {
		large.Keep(model, req, resp, nil, 0)
	}
	if n := large.waiting.Load(); n > maxWaiting+maxRecord || large.Stats().Dropped[Behind] < 60 {
		t.Errorf("%d bytes wait, %+v", n, large.Stats())
	}
	req.Inputs[0].Data = make([]byte, maxRecord)
	large.Keep(model, req, resp, nil, 0)
	if s := large.Stats(); s.Dropped[TooLarge] != 1 {
		t.Errorf("%+v", s)
	}
	// A line of it is written without them.
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		with(t, Options{Dir: dir, Rule: always(Rule{Payloads: true})}, func(l *Log) { l.Keep(model, req, resp, nil, 0) })
		if b, err := os.ReadFile(files(t, dir)[0]); err != nil || len(b) > 1000 || !strings.Contains(string(b), `"bytes":1048576`) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
}

func TestSample(t *testing.T) {
	rate := 0.25
	l := New(Options{Rule: func(string) Rule { return Rule{Rate: rate} }})
	count := func() (n int) {
		for range 10_000 {
			if l.Wants(model) {
				n++
			}
		}
		return n
	}
	if n := count(); n < 2200 || n > 2800 {
		t.Errorf("%d of 10000 at 0.25", n)
	}
	rate = 0
	if n := count(); n < 2200 {
		t.Error("the rule was asked for without need")
	}
	l.Reset()
	if n := count(); n != 0 {
		t.Errorf("%d of 10000 at 0", n)
	}
	if n := testing.AllocsPerRun(100, func() { l.Wants(model) }); n != 0 {
		t.Errorf("%v allocations for a request that is not kept", n)
	}
}

// TestDisk: what the disk does not take is lost and counted, and told of until it takes something again.
func TestDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "requests")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // where the folder should be
			t.Fatal(err)
		}
		var mu sync.Mutex
		var heard []string // guarded by mu
		var low error      // guarded by mu
		pause := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			low = err
		}
		told := func(n int, text string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if len(heard) != n || !strings.Contains(heard[n-1], text) {
				t.Errorf("told %q, want %d, the last %s", heard, n, text)
			}
		}
		room := func() error {
			mu.Lock()
			defer mu.Unlock()
			return low
		}
		trouble := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, fmt.Sprint(err))
		}
		s := with(t, Options{Dir: dir, Rule: always(Rule{}), Room: room, Trouble: trouble}, func(l *Log) {
			l.put(2)
			synctest.Wait()
			told(1, "not a directory")
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			l.put(1) // not yet tried again
			pause(tryAgain)
			l.put(1)
			pause(2 * time.Second)
			told(2, "<nil>")
			set(errors.New("10 MB are free"))
			l.put(1)
			synctest.Wait()
			told(3, "10 MB are free")
			set(nil)
			pause(2 * time.Minute) // nobody asks
			told(4, "<nil>")
		})
		if s.Written != 1 || s.Dropped[Disk] != 4 {
			t.Errorf("%+v", s)
		}
	})
}

// TestAWriteFails: the file keeps what it had, and the next record begins another.
func TestAWriteFails(t *testing.T) {
	dir := t.TempDir()
	w := &writer{Log: New(Options{Dir: dir, Rule: always(Rule{})}), open: make(map[key]*file)}
	add := func() {
		req, resp := predicted(1)
		c := call{v: model, req: req, resp: resp}
		w.add(entry{model: "m", data: c.json(false)})
	}
	add()
	w.look(time.Now())
	for _, f := range w.open {
		read, err := os.Open(f.name) // writing to it fails
		if err != nil {
			t.Fatal(err)
		}
		f.f.Close()
		f.f = read
	}
	add()
	add()
	w.look(time.Now())
	if s := w.Stats(); s.Written != 1 || s.Dropped[Disk] != 2 || len(w.open) != 0 || !w.failed {
		t.Errorf("%+v, %d open", s, len(w.open))
	}
	w.down = time.Time{}
	add()
	w.close()
	if list := files(t, dir); len(list) != 2 || w.failed || w.total != w.closed[0].size+w.closed[1].size {
		t.Errorf("%v, %+v", list, w)
	}
}

func TestWhatACrashLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		with(t, Options{Dir: dir, Rule: always(Rule{Format: TFRecord})}, func(l *Log) { l.put(3) })
		whole := files(t, dir)[0]
		data, err := os.ReadFile(whole)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(whole)
		for name, content := range map[string]string{
			"1.tfrecord.part": string(data[:len(data)-1]), "2.jsonl.part": "{}\n{}\n{", "3.jsonl.part": "{", "4.tfrecord.part": "no record", "5.jsonl": "{}\n", "notes.txt": "mine",
		} {
			if err := os.WriteFile(filepath.Join(dir, "m", name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := with(t, Options{Dir: dir, Rule: always(Rule{})}, func(*Log) {})
		var names []string
		for _, f := range files(t, dir) {
			names = append(names, filepath.Base(f))
		}
		if want := []string{"1.tfrecord", "2.jsonl", "5.jsonl", "notes.txt"}; !slices.Equal(names, want) {
			t.Fatalf("%v, want %v", names, want)
		}
		if n := len(records(t, filepath.Join(dir, "m", "1.tfrecord"))); n != 2 {
			t.Errorf("%d records", n)
		}
		if want := int64(len(data)/3*2 + 6 + 3); s.Bytes != want {
			t.Errorf("%d bytes are counted, want %d", s.Bytes, want)
		}
	})
}

func BenchmarkKeep(b *testing.B) {
	l := New(Options{Rule: always(Rule{Rate: 0.001})})
	b.ReportAllocs()
	for b.Loop() {
		l.Wants(model)
	}
}
