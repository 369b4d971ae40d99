// codec.go: the server's message codec and its buffers.
package rpc

import (
	"context"
	"math/bits"
	"sync"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/inferd/inferd/inference/tensor"
)

// codec reads and writes the messages of predictions by hand, and leaves every other one to the generated code.
type codec struct {
	generated encoding.CodecV2
	pool      mem.BufferPool
}

func newCodec(pool mem.BufferPool) codec {
	return codec{generated: encoding.GetCodecV2(protocodec.Name), pool: pool}
}

// Name is the content subtype, "proto".
func (c codec) Name() string { return protocodec.Name }

// Marshal hands out the bytes that the handler has already written.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*reply); ok {
		return mem.BufferSlice{r.buffer}, nil
	}
	return c.generated.Marshal(v)
}

// byHand is a message that is read without the generated code, and keeps the memory that it lies in.
type byHand interface {
	parse(b []byte) error
	keep(buffer mem.Buffer)
}

// Unmarshal keeps a reference to data for a request that is read by hand, until its free.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(byHand)
	if !ok {
		return c.generated.Unmarshal(data, v)
	}
	// A message that came in one frame is used where it lies; one of several frames is joined, which is the one copy that is made.
	if len(data) > 1 {
		tensor.CountCopy(data.Len())
	}
	buffer := data.MaterializeToBuffer(c.pool)
	if err := r.parse(buffer.ReadOnlyData()); err != nil {
		buffer.Free()
		return err
	}
	r.keep(buffer)
	return nil
}

// held is what a request that is read by hand keeps of its call.
type held struct {
	buffer mem.Buffer      // the message, in which what was read lies; nil once it was freed
	ctx    context.Context // of the call, for its metadata
}

func (h *held) keep(buffer mem.Buffer) { h.buffer = buffer }

// free gives the message's memory back. Nothing that came from the request may be used afterwards.
func (h *held) free() {
	if h.buffer != nil {
		h.buffer.Free()
		h.buffer = nil
	}
}

// reply is an encoded answer. Its one reference goes to grpc with Marshal.
type reply struct {
	buffer mem.Buffer
}

// Sizes of pooled buffers: powers of two. Below, grpc would not give them back; above, they are too large to keep.
const (
	minPooledBits = 11 // 2 KiB; grpc pools above 1 KiB
	maxPooledBits = 26 // 64 MiB
)

// bufferPool holds received frames, joined requests and encoded responses. grpc's own default pool clears a buffer each time it is taken,
// up to 1 MiB for one image; every byte of these is overwritten before it is read.
type bufferPool struct {
	sizes [maxPooledBits + 1]sync.Pool // by the logarithm of the capacity
}

// Get is a buffer of n bytes with any content.
func (p *bufferPool) Get(n int) *[]byte {
	if mem.IsBelowBufferPoolingThreshold(n) || n > 1<<maxPooledBits {
		b := make([]byte, n)
		return &b
	}
	log := max(minPooledBits, bits.Len(uint(n-1)))
	b, ok := p.sizes[log].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, 1<<log)
		b = &fresh
	}
	*b = (*b)[:n]
	return b
}

// Put takes back a buffer of Get's; others are left to the collector.
func (p *bufferPool) Put(b *[]byte) {
	c := cap(*b)
	if log := bits.Len(uint(c)) - 1; c == 1<<max(0, log) && log >= minPooledBits && log <= maxPooledBits {
		p.sizes[log].Put(b)
	}
}
