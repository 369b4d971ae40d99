// place.go: which GPU a worker gets, and how much of it.
package device

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Request is one version's wish.
type Request struct {
	// NeedBytes of device memory: the model's and its runs', without what every process costs. See [Need].
	NeedBytes int64
	// Shared: the version lives with all others of the device in one process. Otherwise it gets a process of its own.
	Shared bool
	// Growth: memory is taken as it is needed, rather than all of the limit at once.
	Growth bool
	// Fraction of the device's memory that a process may take, as configured; 0 lets Place find it.
	Fraction float64
	// Named are the ordinals that the configuration names; empty means any.
	Named []int
	// Failed are the GPUs on which the runtime found none, see [RuledOut].
	Failed []GPU
}

// Use is what has been given out of one GPU. The zero value is nothing.
type Use struct {
	LimitBytes    int64 // what the device's shared process may take; 0 when there is none, or it has no limit of ours
	Members       int   // versions in the shared process
	PromisedBytes int64 // to those
	OwnBytes      int64 // promised to processes of their own, their contexts included
}

// Placement is where a version computes.
type Placement struct {
	GPU *GPU // nil: the CPU
	// Fallback: it is the CPU although the machine has a GPU and nobody asked for the CPU. Reason says why.
	// Whole: that holds for any version, whatever its size.
	Fallback, Whole bool
	// PromisedBytes were set aside for it, in the way that Request.Shared says. LimitBytes is what its process may take of the device.
	PromisedBytes, LimitBytes int64
	// Fraction is LimitBytes as TensorFlow wants it (of the total); 0 leaves it to TensorFlow.
	Fraction float64
	Reason   string
}

// ContextBytes is what a process costs on a device before it computes anything: CUDA's context, and the handles and kernels of its
// libraries. It comes out of the room, never out of a fraction.
const ContextBytes = 512 << 20

// Need guesses the device memory that a model wants besides its process's context, from the size of its weights and its graph. Runs are
// not known before they are made: a guess that was too small shows as an error of the load or of the made-up run.
func Need(weights, graph int64) int64 {
	const runs = 256 << 20
	return weights + graph + max(runs, weights/4)
}

// Place chooses the GPU with the most room, by ordinal uses says what was given out, probe is the error of asking the driver, if there was
// one. Reason is for the log and the status; it is never empty.
func Place(r Request, gpus []GPU, uses map[int]Use, probe error) Placement {
	if probe != nil {
		return Placement{Fallback: true, Whole: true, Reason: "the GPU driver does not answer: " + probe.Error()}
	}
	if len(gpus) == 0 {
		return Placement{Reason: "there is no GPU"}
	}
	var best Placement
	var bestRoom int64
	var why []string
	small := false // some device would do for a smaller version
	for _, n := range r.Named {
		if !slices.ContainsFunc(gpus, func(g GPU) bool { return g.Ordinal == n }) {
			why = append(why, fmt.Sprintf("there is no GPU %d", n))
		}
	}
	for _, g := range gpus {
		named := slices.Contains(r.Named, g.Ordinal)
		if len(r.Named) > 0 && !named {
			continue
		}
		p, room, not := r.on(g, uses[g.Ordinal], named)
		if not != "" {
			small = small || p.GPU != nil
			why = append(why, fmt.Sprintf("GPU %d (%s) %s", g.Ordinal, g.Name, not))
		} else if best.GPU == nil || room > bestRoom {
			best, bestRoom = p, room
		}
	}
	if best.GPU == nil {
		return Placement{Fallback: true, Whole: !small, Reason: strings.Join(why, "; ")}
	}
	return best
}

// on is the placement on g with the room that it was taken from, or why not; then the placement names g only where it would do for less.
func (r Request) on(g GPU, u Use, named bool) (p Placement, room int64, not string) {
	if RuledOut(g, r.Failed) {
		return p, 0, "cannot be used by the TensorFlow runtime, which was built without CUDA or for newer GPUs, or lacks its CUDA libraries"
	}
	p = Placement{GPU: &g, PromisedBytes: r.NeedBytes, Fraction: r.Fraction}
	if !g.known() {
		if !named {
			return Placement{}, 0, "does not say how much memory a process can have; name it in runtime.gpu.visible_devices to use it all the same"
		}
		p.PromisedBytes = 0
		p.Reason = fmt.Sprintf("GPU %d is named, its memory is not known", g.Ordinal)
		return p, 0, ""
	}
	join := r.Shared && u.Members > 0
	if room = Room(g, u, r.Shared); join {
		p.LimitBytes = u.LimitBytes
	} else {
		// A process of its own may take half of the room, so that the next one finds some, or what it needs, if that is more.
		p.LimitBytes = room
		if !r.Shared {
			p.LimitBytes = min(room, max(r.NeedBytes, room/2))
		}
		if r.Fraction > 0 {
			p.LimitBytes = min(room, int64(r.Fraction*float64(g.TotalBytes)))
		}
	}
	if most := min(room, p.LimitBytes); most < r.NeedBytes {
		return p, room, fmt.Sprintf("has room for %d MiB more, %d MiB are needed", max(0, most)>>20, r.NeedBytes>>20)
	}
	if !r.Shared {
		if !r.Growth {
			p.PromisedBytes = p.LimitBytes
		}
		p.PromisedBytes += ContextBytes
	}
	if r.Fraction == 0 {
		p.Fraction = Fraction(p.LimitBytes, g.TotalBytes)
	}
	p.Reason = fmt.Sprintf("GPU %d has the most room, %d MiB", g.Ordinal, room>>20)
	return p, room, ""
}

// Room is what may still be promised on g, without contexts. In the shared process that is what its limit has left. For a process to come
// it is what is free and not more than what is not promised: those who were promised something have touched any part of it.
func Room(g GPU, u Use, shared bool) int64 {
	if shared && u.Members > 0 {
		return max(0, u.LimitBytes-u.PromisedBytes)
	}
	return max(0, min(g.FreeBytes, g.TotalBytes-u.OwnBytes)-ContextBytes)
}

// Fraction is per_process_gpu_memory_fraction for limit bytes of a device with total: rounded down, never 0 (which would mean TensorFlow's
// own choice) and never over 1.
func Fraction(limit, total int64) float64 {
	if total <= 0 || limit >= total {
		return 1
	}
	const steps = 1_000_000
	return max(1, math.Floor(float64(limit)/float64(total)*steps)) / steps
}

// Take is u after p was given out, Give u after it came back. Neither changes anything where p is the CPU.
func (u Use) Take(p Placement, shared bool) Use {
	switch {
	case p.GPU == nil:
	case shared:
		if u.Members == 0 {
			u.LimitBytes = p.LimitBytes
		}
		u.Members++
		u.PromisedBytes += p.PromisedBytes
	default:
		u.OwnBytes += p.PromisedBytes
	}
	return u
}

// Give is described at [Use.Take].
func (u Use) Give(p Placement, shared bool) Use {
	switch {
	case p.GPU == nil:
	case shared:
		u.Members--
		u.PromisedBytes -= p.PromisedBytes
		if u.Members == 0 {
			u.LimitBytes = 0
		}
	default:
		u.OwnBytes -= p.PromisedBytes
	}
	return u
}
