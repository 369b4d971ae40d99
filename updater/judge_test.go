// judge_test.go: verdicts on made-up evidence.
package updater

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

var strict = Probation{Time: time.Minute, Requests: 1000, Errors: 0.01, NaN: 0.01, Latency: 1.5, Memory: 32 << 20, Deaths: 1}

// ran has n runs of about that long, spread over a few buckets as real ones are.
func ran(signature string, rows int64, n int, took time.Duration) (out []Runs) {
	m := NewMeter(map[string]*inference.Signature{signature: nil})
	for i := range n {
		m.Run(signature, rows, took*time.Duration(90+i%20)/100)
	}
	return m.Measures().Runs
}

func steps(n int, requests, bytes func(i int) int64) (out []memoryPoint) {
	for i := range n {
		out = append(out, memoryPoint{requests(i), bytes(i)})
	}
	return out
}

func linear(each int64) func(int) int64 { return func(i int) int64 { return int64(i) * each } }

func TestJudge(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		name   string
		e      evidence
		p      Probation
		breach string // a part of it; empty: none
		done   bool
	}{
		{name: "nothing yet", e: evidence{Took: time.Second}},
		{name: "the time is over", e: evidence{Took: time.Minute}, done: true},
		{name: "enough requests", e: evidence{Took: 5 * time.Second, Looks: 5, New: Measures{Requests: 1000}}, done: true},
		{name: "enough requests, all at once", e: evidence{Took: time.Second, Looks: 1, New: Measures{Requests: 5000}}},
		{name: "no bound on requests", e: evidence{Took: time.Second, Looks: 9, New: Measures{Requests: 5000}}, p: Probation{Time: time.Minute}},

		{name: "NaN", e: evidence{New: Measures{Checked: 50, NaN: 12}, Old: Measures{Checked: 2000}},
			breach: "12 of 50 answers had NaN or infinity, version 3 had 0 of 2000"},
		{name: "NaN in the old one's answers too", e: evidence{New: Measures{Checked: 50, NaN: 12}, Old: Measures{Checked: 125, NaN: 30}}},
		{name: "NaN in every answer, nothing known of the old one", e: evidence{New: Measures{Checked: 5, NaN: 5}}, breach: "5 of 5"},
		{name: "two NaN", e: evidence{New: Measures{Checked: 2, NaN: 2}, Old: Measures{Checked: 5000}}},
		{name: "NaN is not asked about", e: evidence{New: Measures{Checked: 500, NaN: 500}}, p: Probation{Time: time.Minute, NaN: 1}},

		{name: "failures", e: evidence{New: Measures{Requests: 100, Failed: 20}, Old: Measures{Requests: 1000, Failed: 10}},
			breach: "20 of 100 requests failed, version 3 failed 10 of 1000"},
		{name: "as many failures", e: evidence{New: Measures{Requests: 100, Failed: 20}, Old: Measures{Requests: 1000, Failed: 200}}},
		{name: "a few more failures, which is chance", e: evidence{New: Measures{Requests: 100, Failed: 7}, Old: Measures{Requests: 1000, Failed: 30}}},
		{name: "within the margin", e: evidence{New: Measures{Requests: 100000, Failed: 800}, Old: Measures{Requests: 100000}}},
		{name: "over the margin", e: evidence{New: Measures{Requests: 100000, Failed: 1500}, Old: Measures{Requests: 100000}}, breach: "1500 of 100000"},
		{name: "refused inputs", e: evidence{New: Measures{Requests: 60, Refused: 30}, Old: Measures{Requests: 500, Refused: 1}},
			breach: "refused the inputs of 30 of 60 requests, version 3 those of 1 of 500"},

		{name: "a death", e: evidence{New: Measures{Deaths: 1, LastDeath: "killed by SIGABRT"}},
			breach: "its worker died once, last: killed by SIGABRT; that of version 3 0 times"},
		{name: "the old one died as well", e: evidence{New: Measures{Deaths: 1}, Old: Measures{Deaths: 1}}},
		{name: "it died more often", e: evidence{New: Measures{Deaths: 3}, Old: Measures{Deaths: 1}}, breach: "died 3 times; that of version 3 once"},
		{name: "deaths are allowed", e: evidence{New: Measures{Deaths: 1}}, p: Probation{Time: time.Minute, Deaths: 2}},

		{name: "twice as slow", e: evidence{New: Measures{Runs: ran("f", 1, 40, 40*time.Millisecond)}, Old: Measures{Runs: ran("f", 1, 200, 20*time.Millisecond)}},
			breach: `runs of signature "f" take`},
		{name: "a third slower", e: evidence{New: Measures{Runs: ran("f", 1, 400, 26*time.Millisecond)}, Old: Measures{Runs: ran("f", 1, 400, 20*time.Millisecond)}}},
		{name: "twice as slow, few runs", e: evidence{New: Measures{Runs: ran("f", 1, 19, 40*time.Millisecond)}, Old: Measures{Runs: ran("f", 1, 200, 20*time.Millisecond)}}},
		{name: "twice as slow, by microseconds", e: evidence{New: Measures{Runs: ran("f", 1, 400, 400*time.Microsecond)}, Old: Measures{Runs: ran("f", 1, 400, 200*time.Microsecond)}}},
		{name: "larger batches", e: evidence{New: Measures{Runs: ran("f", 16, 400, 80*time.Millisecond)}, Old: Measures{Runs: ran("f", 1, 400, 20*time.Millisecond)}}},
		{name: "another signature", e: evidence{New: Measures{Runs: ran("f", 1, 400, 80*time.Millisecond)}, Old: Measures{Runs: ran("g", 1, 400, 20*time.Millisecond)}}},
		{name: "slow is allowed", e: evidence{New: Measures{Runs: ran("f", 1, 40, 40*time.Millisecond)}, Old: Measures{Runs: ran("f", 1, 200, 20*time.Millisecond)}}, p: Probation{Time: time.Minute}},

		{name: "a leak", e: evidence{Memory: steps(10, linear(10), linear(10*mb))}, breach: "its worker gained 94 MB over 90 requests and goes on gaining"},
		{name: "a leak that the old one has too", e: evidence{Memory: steps(10, linear(10), linear(10*mb)), OldGain: mb}},
		{name: "a leak worse than the old one's", e: evidence{Memory: steps(10, linear(10), linear(10*mb)), OldGain: mb / 4}, breach: "version 3 gained 24 MB over as many"},
		{name: "memory taken at first", e: evidence{Memory: steps(10, linear(10), func(i int) int64 { return min(int64(i)*30, 90) * mb })}},
		{name: "memory taken at once and later", e: evidence{Memory: steps(10, linear(10), func(i int) int64 { return int64(i/9) * 90 * mb })}},
		{name: "little memory", e: evidence{Memory: steps(10, linear(10), linear(3*mb))}},
		{name: "memory with few requests", e: evidence{Memory: steps(10, linear(1), linear(10*mb))}},
		{name: "measured too seldom", e: evidence{Memory: []memoryPoint{{0, 0}, {1, 0}, {95, 90 * mb}, {100, 96 * mb}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.p
			if p == (Probation{}) {
				p = strict
			}
			test.e.Against = 3
			breach, done := judge(test.e, p)
			if done != (test.done || test.breach != "") || (breach != "") != (test.breach != "") || !strings.Contains(breach, test.breach) {
				t.Fatalf("got %q, done %v; want %q, %v", breach, done, test.breach, test.done)
			}
		})
	}
}

// A good version whose rates are the old one's is hardly ever found worse, however often it is looked at.
func TestJudgeIsNotJumpy(t *testing.T) {
	seed, wrong := uint64(1), 0
	chance := func(p float64) int64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		if float64(seed>>11)/(1<<53) < p {
			return 1
		}
		return 0
	}
	const trials = 300
	for range trials {
		e := evidence{Old: Measures{Requests: 500}}
		for range 500 {
			e.Old.Failed += chance(0.05)
		}
		for range 1000 {
			e.New.Requests++
			e.New.Failed += chance(0.05)
			if breach, _ := judge(e, strict); breach != "" {
				wrong++
				break
			}
		}
	}
	if wrong > trials/50 {
		t.Fatalf("%d of %d good versions were found worse", wrong, trials)
	}
}

func TestMeter(t *testing.T) {
	m := NewMeter(map[string]*inference.Signature{"f": nil})
	answer := func(v ...float32) *inference.Response {
		return inference.NewResponse([]*tensor.Tensor{nil, numbers(v...)}, nil)
	}
	nan := float32(math.NaN())
	for range sampleEvery * 10 { // nobody watches: a sample
		m.Answer(answer(1, nan), nil)
	}
	if got := m.Measures(); got.Checked != 10 || got.NaN != 10 || got.Requests != sampleEvery*10 {
		t.Fatalf("%+v", got)
	}
	before := m.Measures()
	m.Watch(true)
	m.Answer(answer(1, 2), nil)
	m.Answer(answer(1, float32(math.Inf(-1))), nil)
	for err, want := range map[error]string{
		inference.Errorf(inference.Internal, inference.ReasonRuntime, ""):                                           "failed",
		&inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: inference.ErrWorkerDied}: "failed",
		inference.Errorf(inference.DeadlineExceeded, inference.ReasonDeadline, ""):                                  "failed",
		inference.Errorf(inference.ResourceExhausted, inference.ReasonRuntime, ""):                                  "failed",
		fmt.Errorf("whatever"): "failed",
		inference.Errorf(inference.InvalidArgument, inference.ReasonRuntime, ""):                                  "refused",
		inference.Errorf(inference.InvalidArgument, inference.ReasonInput, ""):                                    "nobody's",
		inference.Errorf(inference.Unavailable, inference.ReasonQueueFull, ""):                                    "nobody's",
		inference.Errorf(inference.Canceled, inference.ReasonDeadline, ""):                                        "nobody's",
		&inference.Error{Code: inference.Unavailable, Reason: inference.ReasonDraining, Err: inference.ErrClosed}: "nobody's",
	} {
		b := m.Measures()
		m.Answer(nil, err)
		d := m.Measures().since(b)
		got := "nobody's"
		switch {
		case d.Failed == 1 && d.Refused == 0 && d.Requests == 1:
			got = "failed"
		case d.Refused == 1 && d.Failed == 0 && d.Requests == 1:
			got = "refused"
		case d.Requests != 0 || d.Failed != 0 || d.Refused != 0:
			got = fmt.Sprintf("%+v", d)
		}
		if got != want {
			t.Errorf("%v counts as %s, want %s", err, got, want)
		}
	}
	for range 99 {
		m.Run("f", 3, 20*time.Millisecond)
	}
	m.Run("nothing", 1, time.Second)
	d := m.Measures().since(before)
	if d.Checked != 2 || d.NaN != 1 || d.Requests != 8 {
		t.Fatalf("%+v", d)
	}
	got := d.timings()
	if len(got) != 1 || got[kind{"f", 1}].count != 99 {
		t.Fatalf("%+v", got)
	}
	if med := got[kind{"f", 1}].median; med < 17*time.Millisecond || med > 24*time.Millisecond || d.median() != med {
		t.Fatalf("median %v", med)
	}
	r := answer(1, 2)
	if n := testing.AllocsPerRun(100, func() { m.Answer(r, nil); m.Run("f", 1, time.Millisecond) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestOddNumbers(t *testing.T) {
	for _, test := range []struct {
		d    tensor.DType
		data []byte
		want bool
	}{
		{tensor.Float, []byte{0, 0, 0x80, 0x3f, 0, 0, 0xc0, 0x7f}, true},
		{tensor.Float, []byte{0, 0, 0x80, 0x3f, 0xff, 0xff, 0x7f, 0x7f}, false}, // 1 and the largest
		{tensor.Float, []byte{0, 0, 0x80, 0xff}, true},
		{tensor.Double, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x7f}, true},
		{tensor.Double, []byte{0, 0, 0, 0, 0, 0, 0xe0, 0x7f}, false},
		{tensor.Half, []byte{0, 0x7c}, true},
		{tensor.Half, []byte{0xff, 0x7b}, false},
		{tensor.BFloat16, []byte{0xc0, 0x7f}, true},
		{tensor.BFloat16, []byte{0, 0x7c}, false},
		{tensor.Complex64, []byte{0, 0, 0, 0, 0, 0, 0x80, 0x7f}, true},
		{tensor.Int32, []byte{0xff, 0xff, 0xff, 0x7f}, false},
		{tensor.Float, []byte{0, 0, 0x80}, false}, // cut off
	} {
		if got := oddNumbers(test.d, test.data); got != test.want {
			t.Errorf("%v % x: %v", test.d, test.data, got)
		}
	}
}

func numbers(v ...float32) *tensor.Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, f := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
	}
	return &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{int64(len(v))}, Data: data}
}

// Eight bytes at once find what a look at each number finds.
func FuzzOddNumbers(f *testing.F) {
	f.Add([]byte{0, 0, 0xc0, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x80, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var single, double, half, brain bool
		for i := 0; i+4 <= len(data); i += 4 {
			v := float64(math.Float32frombits(binary.LittleEndian.Uint32(data[i:])))
			single = single || math.IsNaN(v) || math.IsInf(v, 0)
		}
		for i := 0; i+8 <= len(data); i += 8 {
			v := math.Float64frombits(binary.LittleEndian.Uint64(data[i:]))
			double = double || math.IsNaN(v) || math.IsInf(v, 0)
		}
		for i := 0; i+2 <= len(data); i += 2 {
			v := binary.LittleEndian.Uint16(data[i:])
			half, brain = half || v>>10&0x1f == 0x1f, brain || v>>7&0xff == 0xff
		}
		for d, want := range map[tensor.DType]bool{tensor.Float: single, tensor.Double: double, tensor.Half: half, tensor.BFloat16: brain, tensor.Int64: false} {
			if got := oddNumbers(d, data); got != want {
				t.Errorf("%v % x: %v, want %v", d, data, got, want)
			}
		}
	})
}

func BenchmarkMeter(b *testing.B) {
	m := NewMeter(map[string]*inference.Signature{"f": nil})
	small := inference.NewResponse([]*tensor.Tensor{numbers(make([]float32, 10)...)}, nil)
	large := inference.NewResponse([]*tensor.Tensor{numbers(make([]float32, watchedBytes/4)...)}, nil)
	for name, c := range map[string]struct {
		watch bool
		r     *inference.Response
	}{"not watched": {false, small}, "watched": {true, small}, "watched, 256 KiB": {true, large}} {
		b.Run(name, func(b *testing.B) {
			m.Watch(c.watch)
			b.ReportAllocs()
			for b.Loop() {
				m.Answer(c.r, nil)
				m.Run("f", 1, time.Millisecond)
			}
		})
	}
}
