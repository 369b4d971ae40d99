// freeze.go: a loaded model's variables become constants of a second session, which takes the place of the first.
package tfrt

/*
#include <stdlib.h>
#include "call.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"unsafe"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/freeze"
	"github.com/inferd/inferd/inference/tensor"
)

// Frozen reports whether the variables are constants, and what was found: what the answers were compared on, or, where they are none, why not.
// The reason is empty where nobody asked for it.
func (m *Model) Frozen() (frozen bool, reason string) { return m.plain != nil, m.frozen }

// freeze gives back m with its variables as constants, or the model as saved with the reason why not. What goes wrong once m's session is
// closed costs a second load.
func (r *Runtime) freeze(m *Model, dir string, opts Options) (*Model, error) {
	why := m.tryFreeze(dir, opts)
	if why == nil {
		return m, nil
	}
	if m.plain != nil { // the first session is closed
		if err := m.Close(); err != nil {
			return nil, fmt.Errorf("close the frozen model: %w", err)
		}
		var err error
		if m, err = r.loadSaved(dir, opts); err != nil {
			return nil, err
		}
	}
	m.frozen = why.Error()
	return m, nil
}

// tryFreeze does it. After an error m is as it was, or m.plain is set and m is good for nothing but Close.
func (m *Model) tryFreeze(dir string, opts Options) error {
	if name := C.inferd_plain_missing(); name != nil {
		return fmt.Errorf("this TensorFlow runtime has no %s", C.GoString(name))
	}
	tags := opts.Tags
	if len(tags) == 0 {
		tags = []string{"serve"}
	}
	plan, err := prepareFreeze(dir, tags, opts.Signatures)
	if err != nil {
		return err
	}
	for _, s := range opts.Signatures { // a tensor that is not there is found before anything is closed
		if err := m.Prepare(s); err != nil {
			return err
		}
	}
	var proofs []proof
	if !opts.Compared {
		proofs = m.observe(opts.Signatures)
	}
	graph, err := m.encode(plan)
	if err != nil {
		return err
	}
	config, err := opts.frozenConfig()
	if err != nil {
		return err
	}
	if m.devices, err = m.listDevices(); err != nil {
		return err
	}
	status := C.TF_NewStatus()
	defer C.TF_DeleteStatus(status)
	plain := C.inferd_plain_new(unsafe.Pointer(unsafe.SliceData(config)), C.size_t(len(config)), status)
	if plain == nil {
		return fmt.Errorf("make a second session: %s", C.GoString(C.TF_Message(status)))
	}
	// From here on the variables are gone: three copies of them at once are enough.
	m.plain = plain
	m.forget()
	if err := m.saved.Session.Close(); err != nil {
		return fmt.Errorf("close the first session: %w", err)
	}
	C.inferd_plain_extend(plain, unsafe.Pointer(unsafe.SliceData(graph)), C.size_t(len(graph)), status)
	if C.TF_GetCode(status) != 0 {
		return fmt.Errorf("TensorFlow does not take the frozen graph: %s", C.GoString(C.TF_Message(status)))
	}
	graph = nil
	release()
	if err := m.initialise(dir, plan); err != nil {
		return err
	}
	if opts.Compared {
		m.frozen = "the answers are not compared here"
		return nil
	}
	if m.frozen, err = m.compare(proofs); err != nil {
		return err
	}
	C.inferd_trim()
	return nil
}

// prepareFreeze keeps the protos of the model out of the caller's frame.
func prepareFreeze(dir string, tags []string, signatures map[string]*inference.Signature) (*freeze.Plan, error) {
	meta, err := freeze.Read(dir, tags)
	if err != nil {
		return nil, err
	}
	return freeze.New(meta, signatures)
}

// release gives back what Go and C have freed: the encoded graph is as large as the variables.
func release() {
	debug.FreeOSMemory()
	C.inferd_trim()
}

// frozenConfig is the ConfigProto of a session over a frozen graph.
func (o Options) frozenConfig() ([]byte, error) {
	b, err := o.config()
	if err != nil {
		return nil, err
	}
	c := new(pb.ConfigProto)
	if err := proto.Unmarshal(b, c); err != nil {
		return nil, err
	}
	if c.Experimental == nil {
		c.Experimental = &pb.ConfigProto_Experimental{}
	}
	// Each of these would be one more copy of the constants.
	c.Experimental.OptimizeForStaticGraph = true
	c.Experimental.DisableOutputPartitionGraphs = true
	if c.GraphOptions == nil {
		c.GraphOptions = &pb.GraphOptions{}
	}
	if c.GraphOptions.RewriteOptions == nil {
		c.GraphOptions.RewriteOptions = &pb.RewriterConfig{}
	}
	c.GraphOptions.RewriteOptions.MinGraphNodes = -1 // a graph of one call has few nodes, and is worth it all the same
	return proto.MarshalOptions{Deterministic: true}.Marshal(c)
}

// encode is the frozen graph with the variables' values, which are read by a run of the session. They are not copied but into the result.
func (m *Model) encode(plan *freeze.Plan) ([]byte, error) {
	fetches, err := m.readers(plan.Variables)
	if err != nil {
		return nil, err
	}
	n := len(fetches)
	in := (*[1 << 28]C.TF_Output)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(C.TF_Output{}))))[:n:n]
	defer C.free(unsafe.Pointer(&in[0]))
	out := (*[1 << 28]*C.TF_Tensor)(C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(uintptr(0)))))[:n:n]
	defer C.free(unsafe.Pointer(&out[0]))
	copy(in, fetches)
	status := C.TF_NewStatus()
	defer C.TF_DeleteStatus(status)
	C.TF_SessionRun(m.session, m.options, nil, nil, 0, &in[0], &out[0], C.int(n), nil, 0, nil, status)
	defer func() {
		for _, t := range out {
			if t != nil {
				C.TF_DeleteTensor(t)
			}
		}
	}()
	if C.TF_GetCode(status) != 0 {
		return nil, fmt.Errorf("read the variables: %s", C.GoString(C.TF_Message(status)))
	}
	values := make([]*tensor.Tensor, n)
	for i, t := range out {
		if values[i], err = lent(t); err != nil {
			return nil, fmt.Errorf("variable %q: %w", plan.Variables[i].Name, err)
		}
	}
	return plan.Encode(values)
}

// lent is a tensor of TensorFlow's as it lies there.
func lent(t *C.TF_Tensor) (*tensor.Tensor, error) {
	v := &tensor.Tensor{DType: tensor.DType(C.TF_TensorType(t)).Base(), Shape: make(tensor.Shape, C.TF_NumDims(t))}
	for d := range v.Shape {
		v.Shape[d] = int64(C.TF_Dim(t, C.int(d)))
	}
	bytes := int64(C.TF_TensorByteSize(t))
	if v.DType == tensor.String {
		n := bytes / stringBytes
		if n == 0 {
			return v, nil
		}
		views := make([]C.inferd_view, n)
		C.inferd_strings_view((*C.TF_TString)(C.TF_TensorData(t)), &views[0], C.size_t(n))
		for _, s := range views {
			v.Strings = append(v.Strings, unsafe.Slice((*byte)(unsafe.Pointer(s.data)), s.bytes))
		}
		return v, nil
	}
	if !v.DType.Carried() {
		return nil, fmt.Errorf("it holds a %v", v.DType)
	}
	if bytes > 0 {
		v.Data = unsafe.Slice((*byte)(C.TF_TensorData(t)), bytes)
	}
	return v, nil
}

// readers finds a node for each variable that reads it, and adds one to the graph where there is none, which the session takes with its next
// run: it then prepares the whole graph anew.
func (m *Model) readers(variables []freeze.Variable) ([]C.TF_Output, error) {
	fetches := make([]C.TF_Output, len(variables))
	for i := range variables {
		v := &variables[i]
		name := v.Read
		if name == "" {
			name = "inferd_frozen/" + strconv.Itoa(i)
			handle, err := m.saved.Graph.AddOperation(tf.OpSpec{Type: "VarHandleOp", Name: name + "/handle", Attrs: map[string]any{
				"dtype": tf.DataType(v.DType), "shape": tf.Shape{}, "container": v.Container, "shared_name": v.Shared}})
			if err == nil {
				_, err = m.saved.Graph.AddOperation(tf.OpSpec{Type: "ReadVariableOp", Name: name, Input: []tf.Input{handle.Output(0)},
					Attrs: map[string]any{"dtype": tf.DataType(v.DType)}})
			}
			if err != nil {
				return nil, fmt.Errorf("read variable %q: %w", v.Name, err)
			}
		}
		cName := C.CString(name)
		op := C.TF_GraphOperationByName(m.graph, cName)
		C.free(unsafe.Pointer(cName))
		if op == nil {
			return nil, fmt.Errorf("read variable %q: the graph has no operation %q", v.Name, name)
		}
		fetches[i] = C.TF_Output{oper: op}
	}
	return fetches, nil
}

// forget drops the signatures that were resolved for the first session.
func (m *Model) forget() {
	m.entriesMu.Lock()
	defer m.entriesMu.Unlock()
	for _, e := range m.entries {
		e.free()
	}
	clear(m.entries)
}

// initialise runs the model's own initialiser in the new session, as TensorFlow's loader does in the first.
func (m *Model) initialise(dir string, plan *freeze.Plan) error {
	if plan.Init == "" {
		return nil
	}
	var in []*C.TF_Tensor
	var names []string
	defer func() {
		for _, t := range in {
			C.TF_DeleteTensor(t)
		}
	}()
	for _, a := range plan.Assets {
		hold := C.inferd_hold_new(C.size_t(stringBytes))
		if hold == nil {
			return outOfMemory()
		}
		path := []byte(filepath.Join(dir, "assets", a.File))
		length := C.uint64_t(len(path))
		s := (*C.TF_TString)(unsafe.Pointer(C.inferd_hold_arena(hold)))
		C.inferd_strings_make(s, (*C.char)(unsafe.Pointer(unsafe.SliceData(path))), &length, 1)
		in = append(in, C.inferd_string_tensor(hold))
		C.inferd_hold_drop(hold)
		names = append(names, a.Tensor)
	}
	feeds, targets := cStrings(names), cStrings([]string{plan.Init})
	defer freeStrings(feeds, len(names))
	defer freeStrings(targets, 1)
	if feeds == nil || targets == nil {
		return outOfMemory()
	}
	tensors := (*[1 << 28]*C.TF_Tensor)(C.calloc(C.size_t(len(in)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(tensors))
	copy(tensors[:len(in):len(in)], in)
	status := C.TF_NewStatus()
	defer C.TF_DeleteStatus(status)
	C.inferd_plain_run(m.plain, m.options, feeds, &tensors[0], C.int(len(in)), nil, nil, 0, targets, 1, status)
	if C.TF_GetCode(status) != 0 {
		return fmt.Errorf("run the initialiser of the frozen model: %s", C.GoString(C.TF_Message(status)))
	}
	return nil
}

// closePlain closes the session of a frozen model.
func (m *Model) closePlain() error {
	if m.plain == nil {
		return nil
	}
	status := C.TF_NewStatus()
	defer C.TF_DeleteStatus(status)
	C.inferd_plain_close(m.plain, status)
	m.plain = nil
	if C.TF_GetCode(status) != 0 {
		return errors.New(C.GoString(C.TF_Message(status)))
	}
	return nil
}

// names are an entry's tensors as a session without a TF_Graph has them: C strings.
type names struct {
	feeds, fetches   **C.char
	nfeeds, nfetches int
}

func newNames(e *entry) *names {
	feeds, fetches := make([]string, len(e.fed)), make([]string, len(e.fetches))
	for n, i := range e.fed {
		feeds[n] = fullName(e.sig.Inputs[i].Tensor)
	}
	for i := range fetches {
		fetches[i] = fullName(e.sig.Outputs[i].Tensor)
	}
	n := &names{feeds: cStrings(feeds), fetches: cStrings(fetches), nfeeds: len(feeds), nfetches: len(fetches)}
	if n.feeds == nil || n.fetches == nil {
		n.free()
		return nil
	}
	return n
}

// fullName is "name:index"; resolve has accepted the tensor.
func fullName(t string) string {
	name, index, _ := splitTensor(t)
	return name + ":" + strconv.Itoa(index)
}

func (n *names) free() {
	if n != nil {
		freeStrings(n.feeds, n.nfeeds)
		freeStrings(n.fetches, n.nfetches)
	}
}

// cStrings is an array of C strings, which freeStrings frees; nil when out of memory.
func cStrings(list []string) **C.char {
	p := (**C.char)(C.calloc(C.size_t(len(list)+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	if p == nil {
		return nil
	}
	for i, s := range list {
		unsafe.Slice(p, len(list))[i] = C.CString(s)
	}
	return p
}

func freeStrings(p **C.char, n int) {
	if p == nil {
		return
	}
	for _, s := range unsafe.Slice(p, n) {
		C.free(unsafe.Pointer(s))
	}
	C.free(unsafe.Pointer(p))
}

// plain has the call run all outputs by their names. TensorFlow keeps the constants once per set of outputs that was ever asked for, so there
// is one set; of what it gives only what was asked for is handed on.
func (c *call) plain(m *Model, outputs []int) {
	p := c.c
	p.plain, p.feed_names, p.fetch_names = m.plain, c.e.names.feeds, c.e.names.fetches
	p.nout, c.asked = C.int(len(c.e.fetches)), outputs
	runtime.KeepAlive(m)
}
