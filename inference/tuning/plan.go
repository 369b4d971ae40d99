// plan.go: Plan, one way of calling TensorFlow.
package tuning

import (
	"errors"
	"fmt"
	"strings"
)

// Settings of oneDNN in a [Plan].
const (
	OneDNNOn  = "on"
	OneDNNOff = "off"
)

// Plan is how a version is loaded and run. The zero value of each field leaves that to the runtime, or to what was configured.
type Plan struct {
	Callers        int    `json:"callers"`                    // runs of the graph at once
	IntraOpThreads int    `json:"intra_op_threads"`           // inside one operation
	InterOpThreads int    `json:"inter_op_threads,omitempty"` // of a pool of TensorFlow's own; 0: the graph runs in the calling thread
	Freeze         bool   `json:"freeze,omitempty"`           // the variables became constants
	SingleThreaded bool   `json:"single_threaded,omitempty"`  // TensorFlow's executor for one thread
	OneDNN         string `json:"onednn,omitempty"`           // on or off; empty: as the runtime has it for this CPU
	BFloat16       bool   `json:"bfloat16,omitempty"`         // matrices are multiplied in bfloat16
}

// maxThreads is the most that a plan that was read may ask for, as in the configuration.
const maxThreads = 4096

// Check refuses what no plan can be. A plan that was read from a file is checked.
func (p Plan) Check() error {
	for _, n := range []int{p.Callers, p.IntraOpThreads, p.InterOpThreads} {
		if n < 0 || n > maxThreads {
			return fmt.Errorf("%d threads or callers are not between 0 and %d", n, maxThreads)
		}
	}
	if p.OneDNN != "" && p.OneDNN != OneDNNOn && p.OneDNN != OneDNNOff {
		return errors.New("oneDNN is neither on nor off")
	}
	return nil
}

// String is the plan in words.
func (p Plan) String() string {
	where := "in the calling thread"
	if p.InterOpThreads > 0 {
		where = fmt.Sprintf("on a pool of %d", p.InterOpThreads)
	}
	parts := []string{fmt.Sprintf("%s %s, %s inside an operation", count(p.Callers, "caller"), where, count(max(1, p.IntraOpThreads), "thread"))}
	if p.Freeze {
		parts = append(parts, "frozen")
	}
	if p.SingleThreaded {
		parts = append(parts, "single-threaded executor")
	}
	if p.OneDNN != "" {
		parts = append(parts, "oneDNN "+p.OneDNN)
	}
	if p.BFloat16 {
		parts = append(parts, "bfloat16")
	}
	return strings.Join(parts, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Step is what a plan does that the other does not, in a word or two; "as saved" for the same.
func (p Plan) Step(from Plan) string {
	var all []string
	add := func(differs bool, format string, args ...any) {
		if differs {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(p.Freeze != from.Freeze, "freeze")
	add(p.SingleThreaded && !from.SingleThreaded, "single-threaded executor")
	add(!p.SingleThreaded && from.SingleThreaded, "default executor")
	add(p.OneDNN != from.OneDNN, "oneDNN %s", p.OneDNN)
	add(p.BFloat16 != from.BFloat16, "bfloat16")
	if p.Callers != from.Callers || p.IntraOpThreads != from.IntraOpThreads {
		all = append(all, fmt.Sprintf("%s of %s", count(p.Callers, "caller"), count(max(1, p.IntraOpThreads), "thread")))
	}
	add(p.InterOpThreads != from.InterOpThreads, "pool of %d", p.InterOpThreads)
	if len(all) == 0 {
		return "as saved"
	}
	return strings.Join(all, ", ")
}
