// dtype.go: TensorFlow's element types, their numbers, names and sizes.
package tensor

import "fmt"

// DType is TensorFlow's DataType number (tensorflow/core/framework/types.proto). Reference types (number + 100) are never
// stored in a DType that this code made: [DType.Base] strips them at the border.
type DType int32

// The element types that the C API can carry. Resource and Variant are handles inside a graph and never cross a wire.
const (
	Invalid    DType = 0
	Float      DType = 1
	Double     DType = 2
	Int32      DType = 3
	Uint8      DType = 4
	Int16      DType = 5
	Int8       DType = 6
	String     DType = 7
	Complex64  DType = 8
	Int64      DType = 9
	Bool       DType = 10
	QInt8      DType = 11
	QUint8     DType = 12
	QInt32     DType = 13
	BFloat16   DType = 14
	QInt16     DType = 15
	QUint16    DType = 16
	Uint16     DType = 17
	Complex128 DType = 18
	Half       DType = 19
	Resource   DType = 20
	Variant    DType = 21
	Uint32     DType = 22
	Uint64     DType = 23
	Float8E5M2 DType = 24
	Float8E4M3 DType = 25
	Int4       DType = 29
	Uint4      DType = 30
)

type dtypeInfo struct {
	proto string // the name in a .pbtxt and in metadata, without "DT_"
	name  string // the name that TensorFlow's runtime prints
	size  int    // bytes of one element; 0 where an element has no fixed size
}

var dtypes = map[DType]dtypeInfo{
	Invalid: {"INVALID", "INVALID", 0}, Float: {"FLOAT", "float", 4}, Double: {"DOUBLE", "double", 8},
	Int32: {"INT32", "int32", 4}, Uint8: {"UINT8", "uint8", 1}, Int16: {"INT16", "int16", 2}, Int8: {"INT8", "int8", 1},
	String: {"STRING", "string", 0}, Complex64: {"COMPLEX64", "complex64", 8}, Int64: {"INT64", "int64", 8},
	Bool: {"BOOL", "bool", 1}, QInt8: {"QINT8", "qint8", 1}, QUint8: {"QUINT8", "quint8", 1}, QInt32: {"QINT32", "qint32", 4},
	BFloat16: {"BFLOAT16", "bfloat16", 2}, QInt16: {"QINT16", "qint16", 2}, QUint16: {"QUINT16", "quint16", 2},
	Uint16: {"UINT16", "uint16", 2}, Complex128: {"COMPLEX128", "complex128", 16}, Half: {"HALF", "half", 2},
	Resource: {"RESOURCE", "resource", 0}, Variant: {"VARIANT", "variant", 0}, Uint32: {"UINT32", "uint32", 4},
	Uint64: {"UINT64", "uint64", 8}, Float8E5M2: {"FLOAT8_E5M2", "float8_e5m2", 1}, Float8E4M3: {"FLOAT8_E4M3FN", "float8_e4m3fn", 1},
	Int4: {"INT4", "int4", 1}, Uint4: {"UINT4", "uint4", 1},
}

// Base strips the reference mark: DT_FLOAT_REF (101) is DT_FLOAT (1).
func (d DType) Base() DType {
	if d > 100 {
		return d - 100
	}
	return d
}

// Size is the number of bytes of one element, 0 for String and for types without bytes.
func (d DType) Size() int { return dtypes[d].size }

// Carried reports whether a tensor of this type can cross from a client to the runtime and back.
func (d DType) Carried() bool { return d == String || d.Size() > 0 }

// String is the name in TensorFlow's protos: DT_FLOAT.
func (d DType) String() string {
	if i, ok := dtypes[d]; ok {
		return "DT_" + i.proto
	}
	return fmt.Sprintf("DT_%d", int32(d))
}

// Name is what TensorFlow's runtime prints in its messages: float.
func (d DType) Name() string {
	if i, ok := dtypes[d]; ok {
		return i.name
	}
	return fmt.Sprintf("unknown dtype enum (%d)", int32(d))
}

// ParseDType reads either spelling, "DT_FLOAT" or "float".
func ParseDType(s string) (DType, bool) {
	for d, i := range dtypes {
		if s == "DT_"+i.proto || s == i.name {
			return d, true
		}
	}
	return Invalid, false
}
