// layout.go: a run and its result as bytes in an area.
package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// An input area holds a header, the output indexes, one descriptor per input, and the tensors' bytes. An output area holds a header, the
// tensors' bytes, and then the descriptors, whose size is known only when the last output is.
//
//	run header:     model u32, signature u32, inputs u32, outputs u32
//	result header:  code u32, flags u32, outputs u32, message bytes u32, descriptors' offset u64, length u64
//	descriptor:     dtype u32, rank u32, offset u64, length u64, dims [rank]i64
const (
	runHeader    = 16
	resultHeader = 64
	descFixed    = 24
	tensorAlign  = 64 // what TensorFlow needs to use memory without copying it

	resultLate = 1 << 0 // flags: TensorFlow keeps the inputs' memory; the core must let go of the input area

	maxMessage = 4 << 10 // of an error
)

// errLies is wrapped by everything that only a broken or hostile worker can cause.
var errLies = errors.New("the worker broke the protocol")

func lies(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errLies, fmt.Sprintf(format, args...))
}

func align(n int) int { return (n + tensorAlign - 1) &^ (tensorAlign - 1) }

// cursor writes little-endian words one after another.
type cursor struct{ rest []byte }

func (c *cursor) u32(v uint32) { binary.LittleEndian.PutUint32(c.rest, v); c.rest = c.rest[4:] }
func (c *cursor) u64(v uint64) { binary.LittleEndian.PutUint64(c.rest, v); c.rest = c.rest[8:] }

func (c *cursor) desc(d tensor.DType, shape tensor.Shape, at, n int) {
	c.u32(uint32(d))
	c.u32(uint32(len(shape)))
	c.u64(uint64(at))
	c.u64(uint64(n))
	for _, dim := range shape {
		c.u64(uint64(dim))
	}
}

// runBytes is the size of the area that run needs: the table in front of the tensors, and all.
func runBytes(run *inference.Run) (table, total int) {
	table = runHeader + 4*len(run.Outputs)
	for i := range run.Inputs {
		table += descFixed + 8*len(run.Inputs[i].Pieces[0].Shape)
	}
	table = align(table)
	total = table
	for i := range run.Inputs {
		total += align(run.Inputs[i].EncodedLen())
	}
	return table, total
}

// encodeRun writes run into mem, which has at least the total of runBytes.
func encodeRun(mem []byte, model, signature uint32, run *inference.Run, table int) {
	c := cursor{mem}
	c.u32(model)
	c.u32(signature)
	c.u32(uint32(len(run.Inputs)))
	c.u32(uint32(len(run.Outputs)))
	for _, o := range run.Outputs {
		c.u32(uint32(o))
	}
	at := table
	for i := range run.Inputs {
		p := run.Inputs[i]
		n := p.EncodedLen()
		c.desc(p.DType(), p.Shape(), at, n)
		p.Encode(mem[at : at+n])
		at += align(n)
	}
}

// decodedRun is a run as the worker sees it. Inputs share the area's memory.
type decodedRun struct {
	model, signature uint32
	inputs           []*tensor.Tensor
	outputs          []int
}

func decodeRun(mem []byte) (*decodedRun, error) {
	if len(mem) < runHeader {
		return nil, lies("an input area of %d bytes", len(mem))
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(mem[at:]) }
	r := &decodedRun{model: word(0), signature: word(4)}
	inputs, outputs := int64(word(8)), int64(word(12))
	if inputs*descFixed+outputs*4 > int64(len(mem)-runHeader) {
		return nil, lies("%d inputs and %d outputs in an input area of %d bytes", inputs, outputs, len(mem))
	}
	r.outputs = make([]int, outputs)
	for i := range r.outputs {
		r.outputs[i] = int(word(runHeader + 4*i))
	}
	r.inputs = make([]*tensor.Tensor, inputs)
	table := mem[runHeader+4*outputs:]
	for i := range r.inputs {
		var d desc
		var err error
		if d, table, err = readDesc(table, len(mem)); err != nil {
			return nil, err
		}
		if r.inputs[i], err = tensor.Decode(d.dtype, d.shape, mem[d.from:d.to:d.to]); err != nil {
			return nil, lies("input %d: %v", i, err)
		}
	}
	return r, nil
}

type desc struct {
	dtype    tensor.DType
	shape    tensor.Shape
	from, to int
}

// readDesc reads the first descriptor of table, about bytes in an area of size bytes. table must be private memory where it comes from a
// worker, for it is read more than once.
func readDesc(table []byte, size int) (desc, []byte, error) {
	if len(table) < descFixed {
		return desc{}, nil, lies("a table of tensors ends after %d bytes of a descriptor", len(table))
	}
	d := desc{dtype: tensor.DType(int32(binary.LittleEndian.Uint32(table)))}
	rank := binary.LittleEndian.Uint32(table[4:])
	from, n := binary.LittleEndian.Uint64(table[8:]), binary.LittleEndian.Uint64(table[16:])
	table = table[descFixed:]
	if rank > tensor.MaxRank || int(rank)*8 > len(table) {
		return desc{}, nil, lies("a tensor of rank %d", rank)
	}
	if n > uint64(size) || from > uint64(size)-n {
		return desc{}, nil, lies("a tensor of %d bytes at %d in an area of %d", n, from, size)
	}
	d.from, d.to = int(from), int(from+n)
	d.shape = make(tensor.Shape, rank)
	for i := range d.shape {
		d.shape[i] = int64(binary.LittleEndian.Uint64(table[8*i:]))
	}
	return d, table[8*rank:], nil
}

// result is a run's outcome, read from an output area. Outputs share the area's memory; the rest is the core's own.
type result struct {
	outputs []*tensor.Tensor
	code    inference.Code // OK, or the graph's error with message
	message string
	late    bool
	used    int // bytes of the area in use
}

// resultIsLate reads only the flag, for a run whose caller has left.
func resultIsLate(mem []byte) bool { return binary.LittleEndian.Uint32(mem[4:])&resultLate != 0 }

// readResult reads what a worker wrote for a run of sig with those outputs. The worker may be writing still: each word that decides
// anything is read once. Any error is the worker's lie.
func readResult(mem []byte, sig *inference.Signature, outputs []int) (result, error) {
	var head [resultHeader]byte
	copy(head[:], mem)
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(head[at:]) }
	r := result{code: inference.Code(word(0)), late: word(4)&resultLate != 0, used: resultHeader}
	count, message := word(8), word(12)
	if r.code != inference.OK {
		if r.code > inference.Unauthenticated || message > maxMessage || int(message) > len(mem)-resultHeader {
			return r, lies("an error with code %d and a text of %d bytes", uint32(r.code), message)
		}
		r.message = strings.ToValidUTF8(string(mem[resultHeader:resultHeader+message]), "\uFFFD")
		return r, nil
	}
	if int64(count) != int64(len(outputs)) {
		return r, lies("%d outputs where %d were asked for", count, len(outputs))
	}
	at, n := binary.LittleEndian.Uint64(head[16:]), binary.LittleEndian.Uint64(head[24:])
	if n > uint64(len(outputs)*(descFixed+8*tensor.MaxRank)) || n > uint64(len(mem)) || at > uint64(len(mem))-n {
		return r, lies("a table of %d bytes at %d in an area of %d", n, at, len(mem))
	}
	table := append(make([]byte, 0, 512), mem[at:at+n]...) // on the stack where it is small
	r.used = int(at + n)
	r.outputs = make([]*tensor.Tensor, len(outputs))
	for i, o := range outputs {
		d, rest, err := readDesc(table, len(mem))
		if err != nil {
			return r, err
		}
		table = rest
		info := &sig.Outputs[o]
		if d.dtype != info.DType {
			return r, lies("output %q is %v, the signature says %v", info.Alias, d.dtype, info.DType)
		}
		// Decode reads each string's offset once, and the slices that it makes lie inside mem whatever is written afterwards.
		if r.outputs[i], err = tensor.Decode(d.dtype, d.shape, mem[d.from:d.to:d.to]); err != nil {
			return r, lies("output %q: %v", info.Alias, err)
		}
	}
	return r, nil
}

// resultWriter puts a run's outcome into an output area, on the worker's side.
type resultWriter struct {
	mem   []byte
	at    int    // where the next tensor goes
	table []byte // the descriptors so far
	count uint32
	// grow asks the core for an area of at least that many bytes. The area that it replaces stays readable.
	grow func(size int) ([]byte, error)
}

func newResultWriter(mem []byte, grow func(int) ([]byte, error)) *resultWriter {
	return &resultWriter{mem: mem, at: resultHeader, grow: grow}
}

// add copies t behind what is there, in a larger area when it does not fit.
func (w *resultWriter) add(t *tensor.Tensor) error {
	p := tensor.One(t)
	n := p.EncodedLen()
	table := len(w.table) + descFixed + 8*len(t.Shape)
	if need := w.at + align(n) + table; need > len(w.mem) {
		larger, err := w.grow(need)
		if err != nil {
			return err
		}
		tensor.CountCopy(w.at)
		copy(larger, w.mem[:w.at])
		w.mem = larger
	}
	p.Encode(w.mem[w.at : w.at+n])
	old := len(w.table)
	w.table = append(w.table, make([]byte, table-old)...)
	c := cursor{w.table[old:]}
	c.desc(t.DType, t.Shape, w.at, n)
	w.at += align(n)
	w.count++
	return nil
}

// finish writes the header: the outputs added so far, or an error instead.
func (w *resultWriter) finish(late bool, failure error) {
	var flags, message uint32
	code := inference.OK
	if late {
		flags |= resultLate
	}
	if failure != nil {
		e := inference.AsError(failure)
		code = e.Code
		if code <= inference.OK || code > inference.Unauthenticated {
			code = inference.Unknown
		}
		message = uint32(copy(w.mem[resultHeader:], e.Msg[:min(len(e.Msg), maxMessage)]))
		w.count, w.table = 0, nil
	} else {
		copy(w.mem[w.at:], w.table)
	}
	c := cursor{w.mem}
	c.u32(uint32(code))
	c.u32(flags)
	c.u32(w.count)
	c.u32(message)
	c.u64(uint64(w.at))
	c.u64(uint64(len(w.table)))
}
