// oipgrpc.go: the Open Inference Protocol's ModelInfer, written and read field by field at the published numbers, so that what is compared
// with inferd is not encoded by inferd's own code.
package main

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

func appendBytes(out []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(out, field, protowire.BytesType), v)
}

func makeOIPGRPC(m *model, from, n int) (request, error) {
	in := m.Input.rows(from, n)
	tensor := appendBytes(nil, 1, []byte(in.Name))
	tensor = appendBytes(tensor, 2, []byte(in.Datatype))
	shape := protowire.AppendVarint(nil, uint64(n))
	for _, d := range in.Shape {
		shape = protowire.AppendVarint(shape, uint64(d))
	}
	tensor = appendBytes(tensor, 3, shape)
	body := appendBytes(nil, 1, []byte(m.Name))
	body = appendBytes(body, 5, tensor)
	return request{path: "/inference.GRPCInferenceService/ModelInfer", body: appendBytes(body, 7, in.raw())}, nil
}

// fields calls each with every field of a message that has a length.
func fields(data []byte, each func(protowire.Number, []byte)) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if kind == protowire.BytesType {
			v, k := protowire.ConsumeBytes(data)
			if k >= 0 {
				each(number, v)
			}
			n = k
		} else {
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
	}
	return nil
}

func readOIPGRPC(m *model, body []byte, _ int) ([]column, error) {
	var out []column
	var raws [][]byte
	var inner error
	err := fields(body, func(number protowire.Number, v []byte) {
		switch number {
		case 5: // outputs
			c := column{}
			inner = fields(v, func(number protowire.Number, v []byte) {
				switch number {
				case 1:
					c.Name = string(v)
				case 2:
					c.Datatype = string(v)
				case 5: // contents, for servers that do not answer raw
					inner = fields(v, func(number protowire.Number, v []byte) {
						switch number {
						case 6: // fp32_contents, packed
							for i := 0; i+4 <= len(v); i += 4 {
								c.Floats = binary.LittleEndian.AppendUint32(c.Floats, binary.LittleEndian.Uint32(v[i:]))
							}
						case 8:
							c.Strings = append(c.Strings, string(v))
						}
					})
				}
			})
			out = append(out, c)
		case 6: // raw_output_contents
			raws = append(raws, v)
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return nil, err
	}
	if len(raws) > 0 && len(raws) != len(out) {
		return nil, fmt.Errorf("%d raw contents for %d outputs", len(raws), len(out))
	}
	for i, r := range raws {
		if out[i], err = unraw(&out[i], r); err != nil {
			return nil, err
		}
	}
	_ = m
	return out, nil
}
