// retry.go: what to do about a load that failed on a GPU.
package device

import "strings"

// Failure is a load that failed on a GPU.
type Failure struct {
	NoDevice  bool // the runtime did not find the GPU
	Exhausted bool // the error's code is RESOURCE_EXHAUSTED
	Died      bool // the worker's process ended
	Text      string
}

// Next is what comes after a Failure.
type Next int

// What can come next.
const (
	GiveUp   Next = iota + 1 // it would fail anywhere
	OtherGPU                 // another one may do: this one is among Request.Failed from now on
	CPU                      // a GPU will not do for this version now
)

// After decides what comes next, and for CPU says why. A version whose worker died is put on the CPU, where it has a process of its own: tried
// again on the GPU it would take all others of the device with it once more.
func After(f Failure) (next Next, why string) {
	switch {
	case f.NoDevice:
		return OtherGPU, ""
	case f.Died:
		return CPU, "the worker on the GPU ended while it loaded: " + f.Text
	case f.Exhausted || noRoom(f.Text):
		return CPU, "the GPU's memory ran out while it loaded: " + f.Text
	default:
		return GiveUp, ""
	}
}

// noRoom reports whether the text of an error says that the device's memory ran out, in TensorFlow's words or CUDA's. CUDA's come with
// code INTERNAL.
func noRoom(text string) bool {
	text = strings.ToLower(text)
	for _, words := range []string{"oom when allocating", "cuda_error_out_of_memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
		"failed to allocate memory", "ran out of memory", "status: out of memory"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
