// default.go: a TensorProto, as it stands in SignatureDef.defaults, as a tensor.
package savedmodel

import (
	"encoding/binary"
	"fmt"
	"math"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// decodeTensor reads tensor_content or the list of the type. As in TensorFlow a list that is too short repeats its last value, and an
// empty one is zeros.
func decodeTensor(p *tensorpb.TensorProto) (*tensor.Tensor, error) {
	d := tensor.DType(p.GetDtype()).Base()
	shape, unknown, err := shapeOf(p.GetTensorShape())
	if err != nil {
		return nil, err
	}
	if unknown {
		shape = tensor.Shape{} // proto's default, which TensorFlow takes for a scalar
		if p.GetTensorShape().GetUnknownRank() {
			return nil, fmt.Errorf("%w: a value of unknown rank", tensor.ErrShape)
		}
	}
	n, err := shape.Elements()
	if err != nil {
		return nil, err
	}
	size := int64(max(d.Size(), 24)) // of a string: its header
	if !d.Carried() || n > maxDefaultSize/size {
		return nil, fmt.Errorf("%v %v is not read", d, shape)
	}
	if d == tensor.String {
		list := p.GetStringVal()
		if int64(len(list)) > n {
			return nil, fmt.Errorf("%w: %d strings for %v", tensor.ErrSize, len(list), shape)
		}
		all := make([][]byte, n)
		for i := range all {
			if len(list) > 0 {
				all[i] = list[min(i, len(list)-1)]
			}
		}
		return tensor.NewStrings(shape, all)
	}
	if len(p.GetTensorContent()) > 0 {
		return tensor.New(d, shape, p.GetTensorContent())
	}
	data := typedValues(d, p)
	want := int(n) * d.Size()
	if len(data) > want {
		return nil, fmt.Errorf("%w: %d values for %v", tensor.ErrSize, len(data)/d.Size(), shape)
	}
	last := make([]byte, d.Size())
	if len(data) > 0 {
		copy(last, data[len(data)-d.Size():])
	}
	for len(data) < want {
		data = append(data, last...)
	}
	return tensor.New(d, shape, data)
}

// typedValues are the values in the list that belongs to the type, as bytes.
func typedValues(d tensor.DType, p *tensorpb.TensorProto) (b []byte) {
	le := binary.LittleEndian
	put := func(size int, v uint64) {
		switch size {
		case 1:
			b = append(b, byte(v))
		case 2:
			b = le.AppendUint16(b, uint16(v))
		case 4:
			b = le.AppendUint32(b, uint32(v))
		default:
			b = le.AppendUint64(b, v)
		}
	}
	switch d {
	case tensor.Float:
		for _, v := range p.GetFloatVal() {
			put(4, uint64(math.Float32bits(v)))
		}
	case tensor.Complex64:
		for _, v := range p.GetScomplexVal()[:len(p.GetScomplexVal())&^1] {
			put(4, uint64(math.Float32bits(v)))
		}
	case tensor.Double:
		for _, v := range p.GetDoubleVal() {
			put(8, math.Float64bits(v))
		}
	case tensor.Complex128:
		for _, v := range p.GetDcomplexVal()[:len(p.GetDcomplexVal())&^1] {
			put(8, math.Float64bits(v))
		}
	case tensor.Int64:
		for _, v := range p.GetInt64Val() {
			put(8, uint64(v))
		}
	case tensor.Uint64:
		for _, v := range p.GetUint64Val() {
			put(8, v)
		}
	case tensor.Uint32:
		for _, v := range p.GetUint32Val() {
			put(4, uint64(v))
		}
	case tensor.Bool:
		for _, v := range p.GetBoolVal() {
			if v {
				put(1, 1)
			} else {
				put(1, 0)
			}
		}
	case tensor.Half, tensor.BFloat16:
		for _, v := range p.GetHalfVal() {
			put(2, uint64(v))
		}
	case tensor.Float8E5M2, tensor.Float8E4M3:
		b = append(b, p.GetFloat8Val()...)
	default: // the small integers, quantized ones included, and int32
		for _, v := range p.GetIntVal() {
			put(d.Size(), uint64(v))
		}
	}
	return b
}
