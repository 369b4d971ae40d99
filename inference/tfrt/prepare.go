// prepare.go: a signature's names become the graph's outputs, once.
package tfrt

/*
#include <stdlib.h>
#include "call.h"
*/
import "C"

import (
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// entry is a signature resolved against the graph, with the calls that wait to be used again. All but idle is immutable.
type entry struct {
	sig     *inference.Signature
	fed     []int // indexes into sig.Inputs: the first alias of each graph tensor
	same    []int // per input: the first input with the same graph tensor, which may be itself
	feeds   *C.TF_Output
	fetches []C.TF_Output // one per sig.Outputs
	names   *names        // of both, for a frozen model; else nil

	mu   sync.Mutex
	gone bool    // guarded by mu; the model was closed, so a call that comes back is freed
	idle []*call // guarded by mu
}

// Prepare resolves the signature's graph tensors. It fails with FAILED_PRECONDITION where the graph has no such tensor or gives it another
// type than the signature says. The result is cached by the signature's identity for the life of the model, so a caller passes the same
// *Signature each time; Call and Run prepare what was not prepared before.
func (m *Model) Prepare(sig *inference.Signature) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return inference.ErrClosed
	}
	_, err := m.entry(sig)
	return err
}

// entry is the resolved signature. m.mu is held.
func (m *Model) entry(sig *inference.Signature) (*entry, error) {
	m.entriesMu.RLock()
	e := m.entries[sig]
	m.entriesMu.RUnlock()
	if e != nil {
		return e, nil
	}
	m.entriesMu.Lock()
	defer m.entriesMu.Unlock()
	if e := m.entries[sig]; e != nil {
		return e, nil
	}
	e, err := m.resolveAll(sig)
	if err != nil {
		return nil, err
	}
	m.entries[sig] = e
	return e, nil
}

func (m *Model) resolveAll(sig *inference.Signature) (*entry, error) {
	e := &entry{sig: sig, same: make([]int, len(sig.Inputs)), fetches: make([]C.TF_Output, len(sig.Outputs))}
	first := make(map[C.TF_Output]int)
	var feeds []C.TF_Output
	for i := range sig.Inputs {
		o, err := m.resolve(sig, "input", &sig.Inputs[i])
		if err != nil {
			return nil, err
		}
		j, seen := first[o]
		if !seen {
			j, first[o] = i, i
			e.fed = append(e.fed, i)
			feeds = append(feeds, o)
		}
		e.same[i] = j
	}
	for i := range sig.Outputs {
		o, err := m.resolve(sig, "output", &sig.Outputs[i])
		if err != nil {
			return nil, err
		}
		e.fetches[i] = o
	}
	e.feeds = (*C.TF_Output)(C.calloc(C.size_t(len(feeds)+1), C.size_t(unsafe.Sizeof(C.TF_Output{}))))
	if e.feeds == nil {
		return nil, outOfMemory()
	}
	copy(unsafe.Slice(e.feeds, len(feeds)), feeds)
	if m.plain != nil {
		if e.names = newNames(e); e.names == nil {
			C.free(unsafe.Pointer(e.feeds))
			return nil, outOfMemory()
		}
	}
	return e, nil
}

func (m *Model) resolve(sig *inference.Signature, what string, info *inference.TensorInfo) (C.TF_Output, error) {
	fail := func(why string) (C.TF_Output, error) {
		return C.TF_Output{}, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel,
			"signature %q: %s %q is the graph's tensor %q, but %s; export the model again", sig.Key, what, info.Alias, info.Tensor, why)
	}
	name, index, ok := splitTensor(info.Tensor)
	if !ok {
		return fail("that is not the form operation:index")
	}
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	op := C.TF_GraphOperationByName(m.graph, cName)
	if op == nil {
		return fail("the graph has no operation " + strconv.Quote(name))
	}
	if n := int(C.TF_OperationNumOutputs(op)); index >= n {
		return fail("that operation has " + strconv.Itoa(n) + " outputs")
	}
	o := C.TF_Output{oper: op, index: C.int(index)}
	if d := tensor.DType(C.TF_OperationOutputType(o)).Base(); d != info.DType.Base() {
		return fail("there it is " + d.String() + " and in the signature " + info.DType.String())
	}
	return o, nil
}

// splitTensor splits "name:index"; the index may be left out where it is 0.
func splitTensor(s string) (name string, index int, ok bool) {
	name, number, found := strings.Cut(s, ":")
	if name == "" || strings.HasPrefix(name, "^") {
		return "", 0, false
	}
	if !found {
		return name, 0, true
	}
	n, err := strconv.ParseUint(number, 10, 31)
	return name, int(n), err == nil
}

func outOfMemory() error {
	return inference.Errorf(inference.ResourceExhausted, inference.ReasonRuntime, "out of memory for the call's buffers")
}

// take is a call with room for so many outputs.
func (e *entry) take(outputs int) (*call, error) {
	e.mu.Lock()
	var c *call
	if n := len(e.idle); n > 0 {
		c, e.idle = e.idle[n-1], e.idle[:n-1]
	}
	e.mu.Unlock()
	if c != nil && int(c.c.out_cap) < outputs {
		c.free()
		c = nil
	}
	if c == nil {
		room := max(outputs, len(e.fetches))
		p := C.inferd_call_new(C.int(len(e.fed)), C.int(room))
		if p == nil {
			return nil, outOfMemory()
		}
		c = &call{c: p, e: e, tensors: make([]tensor.Tensor, room)}
	}
	return c, nil
}

func (e *entry) put(c *call) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		c.free()
		return
	}
	e.idle = append(e.idle, c)
}

// free frees everything in C but the calls whose results are still lent; they are freed as they come back.
func (e *entry) free() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = true
	for _, c := range e.idle {
		c.free()
	}
	e.idle = nil
	C.free(unsafe.Pointer(e.feeds))
	e.names.free()
}
