// codec.go: a gRPC codec that spoils what a request wants to be spoilt.
package conform

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// spoiling writes messages as the request wants them, and reads them as they are.
type spoiling struct{ r *Request }

// Name implements encoding.CodecV2.
func (spoiling) Name() string { return protocodec.Name }

// Marshal implements encoding.CodecV2.
func (c spoiling) Marshal(v any) (mem.BufferSlice, error) {
	if ready, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(c.r.spoilMessage(ready))}, nil
	}
	b, err := encoding.GetCodecV2(protocodec.Name).Marshal(v)
	if err != nil || !c.r.Garbage && c.r.Large == 0 {
		return b, err
	}
	return mem.BufferSlice{mem.SliceBuffer(c.r.spoilMessage(b.Materialize()))}, nil
}

// Unmarshal implements encoding.CodecV2.
func (spoiling) Unmarshal(data mem.BufferSlice, v any) error {
	if into, ok := v.(*[]byte); ok {
		*into = data.Materialize()
		return nil
	}
	return encoding.GetCodecV2(protocodec.Name).Unmarshal(data, v)
}
