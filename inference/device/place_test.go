// place_test.go: where versions are put for what a driver says and what was given out already.
package device

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPlace(t *testing.T) {
	gpus := []GPU{
		{Ordinal: 0, Name: "A", TotalBytes: 16 * gib, FreeBytes: 10 * gib, Capability: "7.5"},
		{Ordinal: 1, Name: "B", TotalBytes: 16 * gib, FreeBytes: 14 * gib, Capability: "3.7"},
	}
	unified := []GPU{{Ordinal: 0, Name: "GB10"}}
	mig := []GPU{{Ordinal: 0, Name: "A100", TotalBytes: 80 * gib, FreeBytes: 80 * gib, MIG: true}}
	for _, c := range []struct {
		name     string
		r        Request
		gpus     []GPU
		uses     map[int]Use
		probe    error
		want     int // ordinal, -1 for the CPU
		fallback bool
		limit    int64 // MiB
		promised int64 // MiB
		reason   string
	}{
		{"the most room", Request{NeedBytes: gib, Growth: true}, gpus, nil, nil, 1, false, (14*1024 - 512) / 2, 1024 + 512, "most room, 13824 MiB"},
		{"what it needs where half is less", Request{NeedBytes: 9 * gib, Growth: true}, gpus, nil, nil, 1, false, 9 * 1024, 9*1024 + 512, "most room"},
		{"promises count", Request{NeedBytes: gib, Growth: true}, gpus, map[int]Use{1: {OwnBytes: 10 * gib}}, nil, 0, false, (10*1024 - 512) / 2, 1024 + 512, "most room"},
		{"a process that takes it all at once", Request{NeedBytes: gib}, gpus, nil, nil, 1, false, (14*1024 - 512) / 2, (14*1024-512)/2 + 512, "most room"},
		{"the first of a shared process gets all of the room", Request{NeedBytes: gib, Shared: true, Growth: true}, gpus, nil, nil, 1, false, 14*1024 - 512, 1024, "most room"},
		{"a shared process has what its limit has left", Request{NeedBytes: gib, Shared: true, Growth: true}, gpus,
			map[int]Use{1: {Members: 2, LimitBytes: 12 * gib, PromisedBytes: 11 * gib}, 0: {Members: 1, LimitBytes: 2 * gib, PromisedBytes: 1536 * mib}},
			nil, 1, false, 12 * 1024, 1024, "most room, 1024 MiB"},
		{"a full shared process", Request{NeedBytes: 2 * gib, Shared: true}, gpus[:1],
			map[int]Use{0: {Members: 1, LimitBytes: 9 * gib, PromisedBytes: 8 * gib}}, nil, -1, true, 0, 0, "GPU 0 (A) has room for 1024 MiB more, 2048 MiB are needed"},
		{"too old for the runtime", Request{NeedBytes: gib, Growth: true, Failed: gpus[1:]}, gpus, nil, nil, 0, false, (10*1024 - 512) / 2, 1536, "most room"},
		{"a runtime without CUDA", Request{NeedBytes: gib, Failed: gpus[:1]}, gpus, nil, nil, -1, true, 0, 0, "GPU 0 (A) cannot be used by the TensorFlow runtime"},
		{"named", Request{NeedBytes: gib, Growth: true, Named: []int{0}}, gpus, nil, nil, 0, false, (10*1024 - 512) / 2, 1536, "most room"},
		{"named what is not there", Request{NeedBytes: gib, Named: []int{7}}, gpus, nil, nil, -1, true, 0, 0, "there is no GPU 7"},
		{"one of two named is there", Request{NeedBytes: gib, Growth: true, Named: []int{7, 0}}, gpus, nil, nil, 0, false, (10*1024 - 512) / 2, 1536, "most room"},
		{"too large", Request{NeedBytes: 15 * gib}, gpus, nil, nil, -1, true, 0, 0, "13824 MiB more, 15360 MiB are needed"},
		{"all promised", Request{NeedBytes: gib}, gpus, map[int]Use{0: {OwnBytes: 16 * gib}, 1: {OwnBytes: 17 * gib}}, nil, -1, true, 0, 0, "room for 0 MiB"},
		{"a configured share", Request{NeedBytes: gib, Growth: true, Fraction: 0.25}, gpus, nil, nil, 1, false, 4 * 1024, 1536, "most room"},
		{"a share that is more than is free", Request{NeedBytes: gib, Growth: true, Fraction: 1}, gpus, nil, nil, 1, false, 14*1024 - 512, 1536, "most room"},
		{"a share that is too small", Request{NeedBytes: 5 * gib, Fraction: 0.25}, gpus, nil, nil, -1, true, 0, 0, "room for 4096 MiB more, 5120 MiB are needed"},
		{"memory that is not known", Request{NeedBytes: gib}, unified, nil, nil, -1, true, 0, 0, "name it in runtime.gpu.visible_devices"},
		{"memory that is not known, named", Request{NeedBytes: gib, Named: []int{0}}, unified, nil, nil, 0, false, 0, 0, "its memory is not known"},
		{"MIG", Request{NeedBytes: gib}, mig, nil, nil, -1, true, 0, 0, "how much memory a process can have"},
		{"MIG, named", Request{NeedBytes: gib, Named: []int{0}, Fraction: 0.5}, mig, nil, nil, 0, false, 0, 0, "its memory is not known"},
		{"no driver", Request{NeedBytes: gib}, nil, nil, errors.New("not found"), -1, true, 0, 0, "the GPU driver does not answer: not found"},
		{"no GPU", Request{NeedBytes: gib, Named: []int{0}}, nil, nil, nil, -1, false, 0, 0, "there is no GPU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Place(c.r, c.gpus, c.uses, c.probe)
			ordinal := -1
			if got.GPU != nil {
				ordinal = got.GPU.Ordinal
			}
			if ordinal != c.want || got.Fallback != c.fallback || got.LimitBytes/mib != c.limit || got.PromisedBytes/mib != c.promised || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("placed %+v; want GPU %d, fallback %v, limit %d MiB, promised %d MiB, reason %q", got, c.want, c.fallback, c.limit, c.promised, c.reason)
			}
			if whole := !strings.Contains(c.reason, "room") && !strings.Contains(c.reason, "needed"); got.Whole != (whole && c.fallback) {
				t.Errorf("%+v: whole: %v", got, got.Whole)
			}
			if c.r.Fraction > 0 && ordinal >= 0 && got.Fraction != c.r.Fraction {
				t.Errorf("fraction %v, configured is %v", got.Fraction, c.r.Fraction)
			}
		})
	}
}

// Whatever comes and goes, what was given out of a device never passes what it has, and everything comes back.
func TestPlaceNeverPromisesTwice(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, shared := range []bool{false, true} {
		var uses = make(map[int]Use)
		type seat struct {
			p Placement
		}
		var seats []seat
		placed, refused := 0, 0
		for range 5000 {
			gpus := []GPU{{Ordinal: 0, TotalBytes: 16 * gib, FreeBytes: 16 * gib}, {Ordinal: 1, TotalBytes: 24 * gib, FreeBytes: 24 * gib}}
			for i := range gpus { // what the driver says lags behind: anything between none and all of the promises has been touched
				u := uses[i]
				gpus[i].FreeBytes -= r.Int64N(u.OwnBytes + u.PromisedBytes + 1)
			}
			if len(seats) > 0 && r.IntN(3) == 0 {
				i := r.IntN(len(seats))
				p := seats[i].p
				seats = append(seats[:i], seats[i+1:]...)
				uses[p.GPU.Ordinal] = uses[p.GPU.Ordinal].Give(p, shared)
				continue
			}
			p := Place(Request{NeedBytes: r.Int64N(6 * gib), Shared: shared, Growth: r.IntN(2) == 0}, gpus, uses, nil)
			if p.GPU == nil {
				refused++
				continue
			}
			placed++
			n := p.GPU.Ordinal
			uses[n] = uses[n].Take(p, shared)
			seats = append(seats, seat{p})
			u := uses[n]
			if p.Fraction <= 0 || p.Fraction > 1 || u.OwnBytes > p.GPU.TotalBytes || u.PromisedBytes > u.LimitBytes || u.LimitBytes > p.GPU.TotalBytes-ContextBytes && shared {
				t.Fatalf("shared %v: %+v makes %+v", shared, p, u)
			}
		}
		if placed == 0 || refused == 0 {
			t.Errorf("shared %v: %d placed, %d refused: nothing was shown", shared, placed, refused)
		}
		for _, s := range seats {
			uses[s.p.GPU.Ordinal] = uses[s.p.GPU.Ordinal].Give(s.p, shared)
		}
		for n, u := range uses {
			if u != (Use{}) {
				t.Errorf("shared %v: GPU %d keeps %+v", shared, n, u)
			}
		}
	}
}

func TestFraction(t *testing.T) {
	for _, c := range []struct {
		limit, total int64
		want         float64
	}{{1, 1 << 40, 0.000001}, {1 << 30, 4 << 30, 0.25}, {5, 4, 1}, {4, 4, 1}, {1, 0, 1}, {1 << 30, 3 << 30, 0.333333}} {
		if got := Fraction(c.limit, c.total); got != c.want {
			t.Errorf("Fraction(%d, %d) = %v, want %v", c.limit, c.total, got, c.want)
		}
	}
}

func TestNeed(t *testing.T) {
	for _, c := range []struct{ weights, graph, want int64 }{{0, 0, 256 * mib}, {100 * mib, mib, 357 * mib}, {4 * gib, 0, 5 * gib}} {
		if got := Need(c.weights, c.graph); got != c.want {
			t.Errorf("Need(%d, %d) = %d, want %d", c.weights, c.graph, got, c.want)
		}
	}
}

func TestAfter(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Failure
		want Next
		why  string
	}{
		{"TensorFlow's allocator", Failure{Text: "OOM when allocating tensor with shape[4096,65536] and type float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc"}, CPU, "memory ran out while it loaded: OOM"},
		{"CUDA's context", Failure{Text: "failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY: out of memory; total memory reported: 15843721216"}, CPU, "memory ran out"},
		{"CUDA's runtime", Failure{Text: "CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory"}, CPU, "memory ran out"},
		{"by its code", Failure{Exhausted: true, Text: "no words for it"}, CPU, "memory ran out"},
		{"died", Failure{Died: true, Text: "signal: aborted"}, CPU, "ended while it loaded: signal: aborted"},
		{"died with words", Failure{Died: true, Text: "Failed to allocate memory"}, CPU, "ended while"},
		{"no device", Failure{NoDevice: true, Text: "whatever"}, OtherGPU, ""},
		{"an op that is not there", Failure{Text: "Op type not registered 'FancyOp'"}, GiveUp, ""},
		{"nothing", Failure{}, GiveUp, ""},
	} {
		got, why := After(c.f)
		if got != c.want || !strings.Contains(why, c.why) || (why == "") != (c.want != CPU) {
			t.Errorf("%s: %v, %q", c.name, got, why)
		}
	}
}
