// simple.go: the models that the example programs of the Open Inference Protocol's reference client are written for, by their names.
package modeltest

import (
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

var sixteen = tensor.Shape{-1, 16}

// Simple is INPUT0, INPUT1 INT32[-1,16] -> OUTPUT0, their sum, and OUTPUT1, their difference.
func Simple() *Model { return sumAndDifference("simple", tensor.Int32) }

// SimpleInt8 is [Simple] for INT8.
func SimpleInt8() *Model { return sumAndDifference("simple_int8", tensor.Int8) }

func sumAndDifference(name string, d tensor.DType) *Model {
	b := newBuilder(name)
	b.placeholder("INPUT0", d, sixteen)
	b.placeholder("INPUT1", d, sixteen)
	b.node("AddV2", "OUTPUT0", []string{"INPUT0", "INPUT1"}, attrs{"T": d})
	b.node("Sub", "OUTPUT1", []string{"INPUT0", "INPUT1"}, attrs{"T": d})
	return b.twoToTwo(d)
}

// SimpleString is [Simple] for numbers written out, STRING[-1,16]; what is no number fails with INVALID_ARGUMENT.
func SimpleString() *Model {
	b := newBuilder("simple_string")
	for _, in := range []string{"INPUT0", "INPUT1"} {
		b.placeholder(in, tensor.String, sixteen)
		b.node("StringToNumber", "number_"+in, []string{in}, attrs{"out_type": tensor.Int32})
	}
	for _, op := range [][2]string{{"AddV2", "OUTPUT0"}, {"Sub", "OUTPUT1"}} {
		b.node(op[0], "number_"+op[1], []string{"number_INPUT0", "number_INPUT1"}, attrs{"T": tensor.Int32})
		b.node("AsString", op[1], []string{"number_" + op[1]}, attrs{"T": tensor.Int32})
	}
	return b.twoToTwo(tensor.String)
}

func (b *builder) twoToTwo(d tensor.DType) *Model {
	b.sign(inference.DefaultSignature, []io{{"INPUT0", "INPUT0", d, sixteen}, {"INPUT1", "INPUT1", d, sixteen}},
		[]io{{"OUTPUT0", "OUTPUT0", d, sixteen}, {"OUTPUT1", "OUTPUT1", d, sixteen}})
	return b.model()
}

// SimpleIdentity is OUTPUT0 = INPUT0 for STRING[-1,-1].
func SimpleIdentity() *Model { return pass("simple_identity", tensor.String) }

// CustomIdentity is OUTPUT0 = INPUT0 for INT32[-1,-1].
func CustomIdentity() *Model { return pass("custom_identity_int32", tensor.Int32) }

func pass(name string, d tensor.DType) *Model {
	b, any := newBuilder(name), tensor.Shape{-1, -1}
	b.placeholder("INPUT0", d, any)
	b.node("Identity", "OUTPUT0", []string{"INPUT0"}, attrs{"T": d})
	b.sign(inference.DefaultSignature, []io{{"INPUT0", "INPUT0", d, any}}, []io{{"OUTPUT0", "OUTPUT0", d, any}})
	return b.model()
}
