// layout_test.go: what the core reads out of shared memory, fed with honest, broken and arbitrary bytes.
package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// pageAligned is memory as a mapping would be.
func pageAligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
	return b[skip : skip+n : skip+n]
}

func mixedSignature() *inference.Signature {
	return &inference.Signature{Key: "s", Outputs: []inference.TensorInfo{
		{Alias: "f", DType: tensor.Float, UnknownRank: true}, {Alias: "s", DType: tensor.String, UnknownRank: true},
	}}
}

func TestRunLayout(t *testing.T) {
	scalar := &tensor.Tensor{DType: tensor.Int64, Shape: tensor.Shape{}, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	run := &inference.Run{Inputs: []tensor.Parts{
		tensor.One(scalar), tensor.One(stringTensor("a", "", "ccc")), {Pieces: []*tensor.Tensor{floatTensor(1), floatTensor(2, 3)}, Pad: 1},
		tensor.One(floatTensor()),
	}, Outputs: []int{4, 0}}
	table, total := runBytes(run)
	mem := pageAligned(total) // exactly: a byte too many would panic
	encodeRun(mem, 3, 9, run, table)
	got, err := decodeRun(mem)
	if err != nil {
		t.Fatal(err)
	}
	if got.model != 3 || got.signature != 9 || len(got.outputs) != 2 || got.outputs[0] != 4 || len(got.inputs) != 4 {
		t.Fatalf("decoded %+v", got)
	}
	if !bytes.Equal(got.inputs[0].Data, scalar.Data) || len(got.inputs[0].Shape) != 0 || string(got.inputs[1].Strings[2]) != "ccc" ||
		!got.inputs[2].Shape.Equal(tensor.Shape{4}) || floats(got.inputs[2].Data)[3] != 1 || !got.inputs[3].Shape.Equal(tensor.Shape{0}) {
		t.Errorf("decoded inputs %v", got.inputs)
	}
	for i, in := range got.inputs {
		if len(in.Data) > 0 && uintptr(unsafe.Pointer(&in.Data[0]))%tensorAlign != 0 {
			t.Errorf("input %d is not aligned: TensorFlow would copy it", i)
		}
	}
}

func TestResultLayout(t *testing.T) {
	mem := pageAligned(minAreaBytes)
	asked := 0
	w := newResultWriter(mem, func(size int) ([]byte, error) {
		asked++
		return pageAligned(size), nil
	})
	long := stringTensor("x", strings.Repeat("y", minAreaBytes))
	for _, x := range []*tensor.Tensor{floatTensor(1, 2), long} {
		if err := w.add(x); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(true, nil)
	got, err := readResult(w.mem, mixedSignature(), []int{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 || !got.late || !resultIsLate(w.mem) || got.code != inference.OK || floats(got.outputs[0].Data)[1] != 2 || string(got.outputs[1].Strings[1]) != string(long.Strings[1]) {
		t.Errorf("asked %d times for memory, read %+v", asked, got)
	}
	if got.used > len(w.mem) || got.used < minAreaBytes {
		t.Errorf("%d bytes used of %d", got.used, len(w.mem))
	}

	w = newResultWriter(mem, nil)
	w.finish(false, inference.Errorf(inference.OutOfRange, "", "bad \xff%s", strings.Repeat("z", 2*maxMessage)))
	got, err = readResult(mem, mixedSignature(), []int{0})
	if err != nil || got.code != inference.OutOfRange || !strings.HasPrefix(got.message, "bad \uFFFDz") || len(got.message) > maxMessage+2 || got.late {
		t.Errorf("read %v %+v", err, got)
	}
}

// FuzzResult feeds the core's reader whatever a worker may have left in an output area. What it accepts lies inside the area.
func FuzzResult(f *testing.F) {
	good := pageAligned(512)
	w := newResultWriter(good, nil)
	for _, x := range []*tensor.Tensor{floatTensor(1, 2), stringTensor("a", "bc")} {
		if err := w.add(x); err != nil {
			f.Fatal(err)
		}
	}
	w.finish(false, nil)
	f.Add(good)
	f.Add(make([]byte, resultHeader))
	f.Add(bytes.Repeat([]byte{0xff}, 256))
	w = newResultWriter(bytes.Clone(good), nil)
	w.finish(true, errors.New("no"))
	f.Add(w.mem)
	f.Fuzz(func(t *testing.T, mem []byte) {
		if len(mem) < resultHeader {
			return // an area is never so small
		}
		sig := mixedSignature()
		got, err := readResult(mem, sig, []int{0, 1})
		if err != nil {
			if !errors.Is(err, errLies) {
				t.Errorf("an error that does not blame the worker: %v", err)
			}
			return
		}
		if got.code != inference.OK {
			if len(got.message) > 3*maxMessage || got.outputs != nil {
				t.Errorf("an error with %d outputs and %d bytes", len(got.outputs), len(got.message))
			}
			return
		}
		begin, end := uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(unsafe.Pointer(unsafe.SliceData(mem)))+uintptr(len(mem))
		inside := func(b []byte) {
			at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
			if len(b) > 0 && (at < begin || at+uintptr(len(b)) > end) {
				t.Error("a tensor lies outside its area")
			}
		}
		for i, x := range got.outputs {
			n, err := x.Shape.Elements()
			if err != nil || x.DType != sig.Outputs[i].DType || x.DType == tensor.String && int64(len(x.Strings)) != n || x.DType == tensor.Float && int64(len(x.Data)) != 4*n {
				t.Errorf("accepted %v %v with %d bytes", x.DType, x.Shape, len(x.Data))
			}
			inside(x.Data)
			for _, s := range x.Strings {
				inside(s)
			}
		}
	})
}

// fakeProcess is the core's state about a worker that does not exist: a run in slot 0, one abandoned in slot 1.
func fakeProcess(tb testing.TB, ringMem []byte) *process {
	tb.Helper()
	p := &process{opts: processOptions{callers: 2, maxRunBytes: 1 << 20}, free: make(chan *slot, 4), stop: make(chan struct{}), loads: map[uint32]chan frame{1: make(chan frame, 1)}}
	p.arena = &arena{max: 1 << 20, announce: func(*area, int) error { return nil }, forget: func(uint32) {}}
	var err error
	if p.ring.ring, err = newRing(ringMem, 8); err != nil {
		tb.Fatal(err)
	}
	for i := range 4 {
		p.slots = append(p.slots, &slot{index: uint32(i), finished: make(chan struct{}, 1)})
	}
	for i, st := range []slotState{slotRunning, slotAbandoned} {
		p.slots[i].state = st
		p.slots[i].in, p.slots[i].out = &area{id: 1, mem: make([]byte, minAreaBytes)}, &area{id: 2, mem: make([]byte, minAreaBytes)}
	}
	return p
}

// FuzzRing gives the core's reader a ring that holds anything.
func FuzzRing(f *testing.F) {
	word := func(position, slot uint32) []byte {
		b := make([]byte, 8)
		le.PutUint64(b, uint64(position)<<32|uint64(slot))
		return b
	}
	f.Add(bytes.Join([][]byte{word(1, 1), word(2, 0)}, nil))
	f.Add(bytes.Join([][]byte{word(1, 0), word(2, 0)}, nil))
	f.Add(word(1, 1<<31))
	f.Add(word(2, 0))
	f.Fuzz(func(t *testing.T, completions []byte) {
		mem := pageAligned(ringBytes(8))
		copy(mem[ringEntries+8*8*submissionWords:], completions)
		p := fakeProcess(t, mem)
		err := p.collect()
		if err != nil && !errors.Is(err, errLies) {
			t.Errorf("an error that does not blame the worker: %v", err)
		}
		if p.completed > 2 || p.ring.taken > 3 {
			t.Errorf("%d runs completed, 2 were in flight; %d entries read", p.completed, p.ring.taken)
		}
	})
}

// FuzzControl gives the core's reader any packet. Frames that would be answered over a socket are left out by their outcome.
func FuzzControl(f *testing.F) {
	for _, x := range []frame{
		{Op: "loaded", Model: 1}, {Op: "loaded", Model: 2}, {Op: "loaded", Model: 1, Code: 77}, {Op: "more", Slot: 3, Size: 1}, {Op: "more", Slot: 9, Size: -1},
	} {
		b, err := json.Marshal(x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"op":"loaded","model":-1}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, packet []byte) {
		got, err := parseFrame(packet)
		if err == nil {
			if got.Op == "more" && got.Slot < 2 && got.Size > minAreaBytes {
				return // legitimate: it would be answered
			}
			err = fakeProcess(t, pageAligned(ringBytes(8))).handle(got)
		}
		if err != nil && !errors.Is(err, errLies) {
			t.Errorf("an error that does not blame the worker: %v", err)
		}
	})
}

// TestRingLaps drives both sides of a ring for many laps.
func TestRingLaps(t *testing.T) {
	mem := pageAligned(ringBytes(8))
	r, err := newRing(mem, 8)
	if err != nil {
		t.Fatal(err)
	}
	core, worker := coreRing{ring: r}, workerRing{r}
	for i := range uint32(1000) {
		if _, ok := worker.claim(); ok {
			t.Fatal("claimed what was not submitted")
		}
		for j := range i % 9 { // up to a full ring
			if core.submit(submission{slot: j, in: i, out: j}) {
				t.Fatal("nobody sleeps")
			}
		}
		for j := range i % 9 {
			if s, ok := worker.claim(); !ok || s != (submission{slot: j, in: i, out: j}) {
				t.Fatalf("claimed %+v, %v", s, ok)
			}
			if worker.complete(j) {
				t.Fatal("the core does not sleep")
			}
		}
		for j := range i % 9 {
			if s, ok := core.next(); !ok || s != j {
				t.Fatalf("completed %d, %v, want %d", s, ok, j)
			}
		}
		if s, ok := core.next(); ok {
			t.Fatalf("completed %d of an earlier lap", s)
		}
	}
}

// TestEachSubmissionWakesOne checks the doorbell's arithmetic: one ring per sleeper, and none for one that is awake.
func TestEachSubmissionWakesOne(t *testing.T) {
	r, err := newRing(pageAligned(ringBytes(8)), 8)
	if err != nil {
		t.Fatal(err)
	}
	core := coreRing{ring: r}
	r.sleepers.Store(2)
	for i, want := range []bool{true, true, false} {
		if got := core.submit(submission{slot: uint32(i)}); got != want {
			t.Errorf("submission %d wakes: %v", i, got)
		}
	}
	worker := workerRing{r}
	r.asleep.Store(1)
	if !worker.complete(0) || worker.complete(1) {
		t.Error("the core is woken once per sleep")
	}
}

func TestProcField(t *testing.T) {
	text := []byte("Name:\tx\nRssAnon:\t    1024 kB\nRssShmem:\t       8 kB\nBroken:\nText: abc kB\n")
	for name, want := range map[string]int64{"RssAnon:": 1 << 20, "RssShmem:": 8 << 10, "Broken:": 0, "Text:": 0, "None:": 0} {
		if got := procField(text, name); got != want {
			t.Errorf("%s %d, want %d", name, got, want)
		}
	}
}

func TestRunnable(t *testing.T) {
	for text, want := range map[string]int{"0.20 0.18 0.12 3/80 11206\n": 3, "": 0, "1 2 3 x/y 4": 0, "1 2 3": 0} {
		if got := runnable([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestSpinnerLearns(t *testing.T) {
	var s spinner
	s.looked.Store(math.MaxInt64 / 2) // it has just looked, and the processors were free
	var polled atomic.Int64
	never := func() bool { polled.Add(1); return false }
	for range 10 * probe {
		s.spin(1, never)
	}
	if canSpin && polled.Load() > 10*32*4 {
		t.Errorf("polled %d times though it never pays", polled.Load())
	}
	for range 2 * probe {
		s.spin(maxSpin, func() bool { return true })
	}
	if canSpin && !s.spin(maxSpin, func() bool { return true }) {
		t.Error("does not poll though it pays")
	}
	if s.spin(0, func() bool { t.Error("polled without a budget"); return true }) {
		t.Error("found something without a budget")
	}
}
