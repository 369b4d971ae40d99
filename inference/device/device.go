// Package device decides where a worker computes: on which GPU, with which part of its memory, or on the CPU.
//
// Invariants:
//  1. What is decided is decided by functions of their arguments. Only [Driver] looks at the machine, and it does so through nvidia-smi, a
//     process of its own: a driver that hangs or crashes must take nobody with it.
//  2. What a driver says is checked; an answer that cannot be read is an error that quotes it, and the caller falls back to the CPU.
//  3. Memory is placed by what was promised to workers as well as by what the driver reports, for a worker that grows has not yet touched
//     what it was promised.
//  4. A GPU whose memory is not known (it shares the machine's, or it is split by MIG) is used only where the configuration names it.
//
// Who starts the worker puts what a [Placement] says into its worker.Load. The package is not for measuring what a model takes.
package device

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// GPU is one device as the driver describes it.
type GPU struct {
	Index      int // nvidia-smi's
	Ordinal    int // what CUDA and TensorFlow's visible_device_list call it, where CUDA_DEVICE_ORDER is PCI_BUS_ID
	UUID       string
	Name       string
	TotalBytes int64 // 0: not known
	FreeBytes  int64
	Capability string // compute capability, "9.0"; empty when the driver does not say
	MIG        bool   // split into instances; the bytes are those of the whole
}

// known reports whether the bytes mean what a process can have.
func (g GPU) known() bool { return g.TotalBytes > 0 && !g.MIG }

// String is g for a log or a person.
func (g GPU) String() string {
	s := fmt.Sprintf("GPU %d: %s", g.Ordinal, g.Name)
	if g.known() {
		s += fmt.Sprintf(", %.1f GiB, %.1f GiB free", float64(g.TotalBytes)/(1<<30), float64(g.FreeBytes)/(1<<30))
	} else if g.MIG {
		s += ", split by MIG"
	} else {
		s += ", memory not known"
	}
	if g.Capability != "" {
		s += ", compute capability " + g.Capability
	}
	return s
}

// Visible are those of gpus that CUDA shows to a process whose environment has list as CUDA_VISIBLE_DEVICES (set: whether it has one),
// with their ordinals. CUDA reads the list up to the first thing that names no device; a number or the beginning of a UUID names one.
func Visible(gpus []GPU, list string, set bool) []GPU {
	gpus = slices.SortedFunc(slices.Values(gpus), func(a, b GPU) int { return a.Index - b.Index })
	if set {
		all := gpus
		gpus = nil
		for word := range strings.SplitSeq(list, ",") {
			g, ok := named(all, strings.TrimSpace(word))
			if !ok || slices.ContainsFunc(gpus, func(o GPU) bool { return o.UUID == g.UUID }) {
				break
			}
			gpus = append(gpus, g)
		}
	}
	for i := range gpus {
		gpus[i].Ordinal = i
	}
	return gpus
}

// named is the one GPU that word stands for.
func named(gpus []GPU, word string) (GPU, bool) {
	if strings.HasPrefix(word, "MIG-") {
		return GPU{Index: -1, UUID: word, Name: "a MIG instance", MIG: true}, true // the driver lists the GPUs, not their instances
	}
	var found []GPU
	for place, g := range gpus {
		if strings.HasPrefix(word, "GPU-") && strings.HasPrefix(g.UUID, word) || word == strconv.Itoa(place) {
			found = append(found, g)
		}
	}
	if len(found) != 1 {
		return GPU{}, false
	}
	return found[0], true
}

// RuledOut reports whether g will not do because a worker on one of failed found no GPU: a runtime that was built without CUDA finds none
// anywhere, and one that is too new for a GPU is too new for all that are older.
func RuledOut(g GPU, failed []GPU) bool {
	return slices.ContainsFunc(failed, func(f GPU) bool { return !less(f.Capability, g.Capability) })
}

// Usable reports whether versions may come to compute on any of gpus, as far as is known without a size: it decides whether the default
// is one worker per device. named are the ordinals that the configuration names, failed the GPUs on which the runtime found none.
func Usable(gpus []GPU, named []int, failed []GPU) bool {
	return slices.ContainsFunc(gpus, func(g GPU) bool {
		if RuledOut(g, failed) {
			return false
		}
		if len(named) == 0 {
			return g.known()
		}
		return slices.Contains(named, g.Ordinal)
	})
}

// less compares versions like "7.5"; an unknown one is never less.
func less(have, need string) bool {
	h, err1 := strconv.ParseFloat(have, 64)
	n, err2 := strconv.ParseFloat(need, 64)
	return err1 == nil && err2 == nil && h < n
}

// Ordinals reads a list of device numbers such as "0, 2", as the configuration checked it; nil when it is empty.
func Ordinals(list string) (ordinals []int) {
	for word := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(strings.TrimSpace(word)); err == nil {
			ordinals = append(ordinals, n)
		}
	}
	return ordinals
}
