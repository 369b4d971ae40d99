// Package device decides where a worker computes: on which GPU, with which part of its memory, or on the CPU.
//
// Invariants:
//  1. Everything here is a function of its arguments: nothing opens a library, runs a command or looks at the machine.
//  2. What a driver says is checked; an answer that cannot be read is an error that quotes it, and the caller falls back to the CPU.
//  3. Memory is placed by what was promised to workers as well as by what the driver reports, for a worker that grows has not yet touched
//     what it was promised.
//
// Who asks the driver is elsewhere; who starts the worker sets what a [Placement] says in its worker.Load.
package device

import (
	"encoding/csv"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// GPU is one device as the driver describes it.
type GPU struct {
	Index      int // as the driver numbers them, which is visible_device_list's order when CUDA_DEVICE_ORDER is PCI_BUS_ID
	UUID       string
	Name       string
	TotalBytes int64
	FreeBytes  int64
	Capability string // compute capability, "9.0"; empty when the driver does not say
}

// Query is the field list that [ParseSMI] reads: nvidia-smi --query-gpu=Query --format=csv,noheader,nounits.
const Query = "index,uuid,name,memory.total,memory.free,compute_cap"

// ParseSMI reads nvidia-smi's answer to [Query]. An empty answer, or its sentence that there are no devices, is no GPUs and no error.
func ParseSMI(answer string) ([]GPU, error) {
	answer = strings.TrimSpace(answer)
	if answer == "" || strings.HasPrefix(answer, "No devices were found") {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(answer))
	r.TrimLeadingSpace = true
	r.LazyQuotes = true
	r.FieldsPerRecord = -1
	records, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi answered %s: %w", short(answer), err)
	}
	var all []GPU
	for _, f := range records {
		if len(f) != strings.Count(Query, ",")+1 {
			return nil, fmt.Errorf("nvidia-smi answered %s, not the %d fields asked for", short(strings.Join(f, ", ")), strings.Count(Query, ",")+1)
		}
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		index, err := strconv.Atoi(f[0])
		if err != nil || index < 0 || slices.ContainsFunc(all, func(g GPU) bool { return g.Index == index }) {
			return nil, fmt.Errorf("nvidia-smi answered the index %s", short(f[0]))
		}
		g := GPU{Index: index, UUID: f[1], Name: f[2]}
		if strings.HasPrefix(f[1], "MIG-") || strings.HasPrefix(f[1], "GPU-") {
			if g.TotalBytes, err = mebibytes(f[3]); err == nil {
				g.FreeBytes, err = mebibytes(f[4])
			}
		} else {
			err = fmt.Errorf("the UUID %s", short(f[1]))
		}
		if err == nil && g.FreeBytes > g.TotalBytes {
			err = fmt.Errorf("more memory free than there is, %s of %s", f[4], f[3])
		}
		if err != nil {
			return nil, fmt.Errorf("nvidia-smi about GPU %d answered %w", index, err)
		}
		if _, err := strconv.ParseFloat(f[5], 64); err == nil {
			g.Capability = f[5]
		}
		all = append(all, g)
	}
	return all, nil
}

func mebibytes(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0, fmt.Errorf("%s MiB of memory", short(s))
	}
	return n << 20, nil
}

func short(s string) string { return strconv.Quote(s[:min(len(s), 120)]) }

// Mode is what the configuration asks for.
type Mode int

// The modes.
const (
	Auto    Mode = iota // a GPU where there is room, else the CPU
	CPUOnly             // never a GPU
	GPUOnly             // a GPU or nothing
)

// Request is one worker's wish.
type Request struct {
	Mode Mode
	// NeedBytes of device memory: the model's and its runs', without what every process costs.
	NeedBytes int64
	// Pinned is the index of the only GPU that it may use; negative for any.
	Pinned int
	// MinCapability is the lowest compute capability that the runtime was built for, "6.0"; empty for any.
	MinCapability string
}

// ContextBytes is what a process costs on a device before it computes anything.
const ContextBytes = 512 << 20

// Placement is where a worker computes.
type Placement struct {
	GPU *GPU // nil: the CPU
	// LimitBytes is what it was promised of the device, context included; Fraction is that as TensorFlow wants it (of the total).
	LimitBytes int64
	Fraction   float64
	// Reason says why it is the CPU although a GPU was possible, or why this GPU; for the log and the status.
	Reason string
}

// Place chooses the GPU with the most room. promised has, by index, the bytes that other workers were promised and have not all touched
// yet; probe is the error of asking the driver, if there was one. It fails only where GPUOnly cannot be kept.
func Place(r Request, gpus []GPU, promised map[int]int64, probe error) (Placement, error) {
	if r.Mode == CPUOnly {
		return Placement{Reason: "the configuration asks for the CPU"}, nil
	}
	need := r.NeedBytes + ContextBytes
	why := "there is no GPU"
	if probe != nil {
		why, gpus = "the GPU driver does not answer: "+probe.Error(), nil
	} else if r.Pinned >= 0 {
		why = fmt.Sprintf("there is no GPU %d", r.Pinned)
		gpus = slices.DeleteFunc(slices.Clone(gpus), func(g GPU) bool { return g.Index != r.Pinned })
	}
	var best *GPU
	var bestRoom int64
	for i := range gpus {
		g := &gpus[i]
		room := Room(*g, promised[g.Index])
		switch {
		case less(g.Capability, r.MinCapability):
			why = fmt.Sprintf("GPU %d (%s) has compute capability %s, the runtime needs %s", g.Index, g.Name, g.Capability, r.MinCapability)
		case room < need:
			why = fmt.Sprintf("GPU %d has room for %d MiB, %d MiB are needed", g.Index, room>>20, need>>20)
		case best == nil || room > bestRoom:
			best, bestRoom = g, room
		}
	}
	if best == nil {
		if r.Mode == GPUOnly {
			return Placement{}, fmt.Errorf("no GPU for a worker that must have one: %s", why)
		}
		return Placement{Reason: why}, nil
	}
	chosen := *best
	return Placement{
		GPU: &chosen, LimitBytes: need, Fraction: Fraction(need, chosen.TotalBytes),
		Reason: fmt.Sprintf("GPU %d has the most room, %d MiB", chosen.Index, bestRoom>>20),
	}, nil
}

// Room is what may still be promised on g: what is free, and not more than what is not promised.
func Room(g GPU, promised int64) int64 {
	return max(0, min(g.FreeBytes, g.TotalBytes-promised))
}

// Fraction is per_process_gpu_memory_fraction for limit bytes of a device with total: rounded up, never 0 (which would mean TensorFlow's
// own choice) and never over 1.
func Fraction(limit, total int64) float64 {
	if total <= 0 || limit >= total {
		return 1
	}
	const steps = 10_000
	return max(1, math.Ceil(float64(limit)/float64(total)*steps)) / steps
}

// less compares versions like "7.5"; an unknown one is never less.
func less(have, need string) bool {
	h, err1 := strconv.ParseFloat(have, 64)
	n, err2 := strconv.ParseFloat(need, 64)
	return err1 == nil && err2 == nil && h < n
}
