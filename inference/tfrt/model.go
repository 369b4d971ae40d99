// model.go: a loaded SavedModel, and running it in this process.
package tfrt

/*
#include "call.h"
*/
import "C"

import (
	"context"
	"runtime"
	"slices"
	"sync"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Model is a loaded SavedModel. Its methods may be called from any goroutine; Call and Run block a thread for the length of a run.
type Model struct {
	// immutable after Load
	graph   *C.TF_Graph
	session *C.TF_Session
	options *C.TF_Buffer    // RunOptions, may be nil
	slots   chan struct{}   // one element per Run in flight
	plain   *C.inferd_plain // runs in the place of session where the variables are constants; nil where they are not
	devices []Device        // of a frozen model
	frozen  string          // what was found when it was to be frozen

	entriesMu sync.RWMutex
	entries   map[*inference.Signature]*entry // guarded by entriesMu

	mu     sync.RWMutex   // held for reading by every run, so that Close waits for them; taken before the other locks
	closed bool           // guarded by mu
	saved  *tf.SavedModel // guarded by mu
}

var _ inference.Runner = (*Model)(nil)

// Device is a device that the model may run on.
type Device struct {
	Name, Type  string // "/job:localhost/replica:0/task:0/device:CPU:0", "CPU"
	MemoryBytes int64  // the most that TensorFlow will take of it
}

// Devices are the devices of the model's session.
func (m *Model) Devices() ([]Device, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, inference.ErrClosed
	}
	if m.plain != nil {
		return slices.Clone(m.devices), nil
	}
	return m.listDevices()
}

func (m *Model) listDevices() ([]Device, error) {
	list, err := m.saved.Session.ListDevices()
	if err != nil {
		return nil, err
	}
	devices := make([]Device, len(list))
	for i, d := range list {
		devices[i] = Device{Name: d.Name, Type: d.Type, MemoryBytes: d.MemoryLimitBytes}
	}
	return devices, nil
}

// Slots is Options.Slots.
func (m *Model) Slots() int { return cap(m.slots) }

// Run runs one batch in this process (isolation none). The inputs are copied, so they are the caller's again when Run returns. When ctx ends
// first, Run returns its error as an *inference.Error and the run goes on; it keeps its slot until it has ended, so that runs that never end
// cannot pile up. There is no run_timeout here: nothing but the end of the process ends a run.
func (m *Model) Run(ctx context.Context, run *inference.Run) (*inference.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, inference.AsError(err)
	}
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, inference.AsError(ctx.Err())
	}
	m.mu.RLock()
	leave := func() {
		m.mu.RUnlock()
		<-m.slots
	}
	c, err := m.begin(run)
	if err != nil {
		leave()
		return nil, err
	}
	// From here on the call has all it needs: run.Inputs is not touched again.
	if run.Copied != nil {
		run.Copied()
	}
	outputs := len(run.Outputs)
	execute := func() (*inference.Result, error) {
		defer leave()
		if err := c.run(); err != nil {
			c.finish(nil)
			return nil, err
		}
		return c.result(outputs)
	}
	if ctx.Done() == nil {
		return execute()
	}
	type answer struct {
		result *inference.Result
		err    error
	}
	answers := make(chan answer) // unbuffered: a result is either taken or released by the one who made it
	go func() {
		result, err := execute()
		select {
		case answers <- answer{result, err}:
		case <-ctx.Done():
			if result != nil {
				result.Release()
			}
		}
	}()
	select {
	case a := <-answers:
		return a.result, a.err
	case <-ctx.Done():
		return nil, inference.AsError(ctx.Err())
	}
}

// begin is a call that is ready to run. m.mu is held.
func (m *Model) begin(run *inference.Run) (*call, error) {
	if m.closed {
		return nil, inference.ErrClosed
	}
	e, err := m.entry(run.Signature)
	if err != nil {
		return nil, err
	}
	c, err := e.take(len(run.Outputs))
	if err != nil {
		return nil, err
	}
	if err := c.set(m, run.Inputs, run.Outputs, false); err != nil {
		e.put(c)
		return nil, err
	}
	return c, nil
}

// result lends the outputs until the result is released. m.mu is held for the run only: a result keeps nothing of the model but the call,
// which Close leaves alone until it is back.
func (c *call) result(outputs int) (*inference.Result, error) {
	tensors := make([]tensor.Tensor, outputs)
	list := make([]*tensor.Tensor, outputs)
	for i := range tensors {
		if err := c.output(i, &tensors[i]); err != nil {
			c.finish(nil)
			return nil, err
		}
		list[i] = &tensors[i]
	}
	return inference.NewResult(list, func() { c.finish(nil) }), nil
}

// Close waits for the runs in flight, then frees the session, the graph and every idle call. Memory that TensorFlow still holds for a Late,
// and outputs that a Result lends, stay good. Calling it again gives nil. TensorFlow does not return all of a model's memory to the system:
// only the end of the process does.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	err := m.saved.Session.Close()
	if e := m.closePlain(); err == nil {
		err = e
	}
	// The binding would free the graph in a finalizer, some time.
	runtime.SetFinalizer(m.saved.Graph, nil)
	C.TF_DeleteGraph(m.graph)
	if m.options != nil {
		C.TF_DeleteBuffer(m.options)
	}
	m.entriesMu.Lock()
	defer m.entriesMu.Unlock()
	for _, e := range m.entries {
		e.free()
	}
	m.saved, m.graph, m.session, m.options, m.entries = nil, nil, nil, nil, nil
	return err
}

// Counts is the number of C objects that exist now, over the whole process.
type Counts struct {
	Inputs  int64 // input buffers that TensorFlow holds
	Outputs int64 // output tensors that are lent
	Holds   int64 // accounts of calls, in use or idle
}

// Count reads the counters. A model at rest has no Inputs and no Outputs, unless it keeps its inputs.
func Count() Counts {
	c := C.inferd_count()
	return Counts{Inputs: int64(c.inputs), Outputs: int64(c.outputs), Holds: int64(c.holds)}
}
