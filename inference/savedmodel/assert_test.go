// assert_test.go: assertions of a configuration.
package savedmodel

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

func TestAssertSignature(t *testing.T) {
	got := &inference.Signature{
		Key: "serving_default",
		Inputs: []inference.TensorInfo{
			{Alias: "image", Tensor: "serving_default_image:0", DType: tensor.Float, Shape: tensor.Shape{-1, 28, 28, 1}},
			{Alias: "scale", Tensor: "scale:0", DType: tensor.Float, Shape: tensor.Shape{}, Default: modeltest.Floats(tensor.Shape{}, 1)},
		},
		Outputs: []inference.TensorInfo{
			{Alias: "any", Tensor: "call:1", DType: tensor.Int64, UnknownRank: true},
			{Alias: "scores", Tensor: "call:0", DType: tensor.Float, Shape: tensor.Shape{-1, 10}},
		},
	}
	input := func(s string) string { return `inputs { key: "image" value { ` + s + ` } }` }
	dims := func(d ...string) string {
		return `tensor_shape { dim { size: ` + strings.Join(d, " } dim { size: ") + ` } }`
	}
	const dtype = ` dtype: DT_FLOAT `
	tests := []struct{ name, want, fault string }{ // fault "" when the assertion holds
		{"everything", input(`name: "serving_default_image:0" dtype: DT_FLOAT ` + dims("-1", "28", "28", "1")), ""},
		{"number for any", input(dtype + dims("1", "28", "28", "1")), ""},
		{"name without output number", input(`name: "serving_default_image"`), ""},
		{"nothing about the input but its being there", input(""), ""},
		{"reference type", input(`dtype: DT_FLOAT_REF`), ""},
		{"an output", input("") + `outputs { key: "scores" value { dtype: DT_FLOAT ` + dims("-1", "10") + `} }`, ""},
		{"any shape fits an unknown rank", input("") + `outputs { key: "any" value { ` + dims("3", "-1") + `} }`, ""},
		{"unknown rank fits an unknown rank", input("") + `outputs { key: "any" value { tensor_shape { unknown_rank: true } } }`, ""},
		{"scalar", input("") + `inputs { key: "scale" value { tensor_shape { } } }`, ""},
		{"method is not compared", input("") + `method_name: "something/else"`, ""},

		{"another number", input(dims("1", "28", "28", "3")), "<- shape"},
		{"any for a number", input(dims("-1", "-1", "28", "1")), "<- shape"},
		{"another rank", input(dims("28", "28", "1")), "<- shape"},
		{"unknown rank for a known one", input(`tensor_shape { unknown_rank: true }`), "<- shape"},
		{"scalar for a known rank", input(`tensor_shape { }`), "<- shape"},
		{"another type", input(`dtype: DT_INT32`), "<- dtype"},
		{"another name", input(`name: "x:0"`), "<- name"},
		{"another output of the node", input(`name: "serving_default_image:1"`), "<- name"},
		{"all three", input(`name: "x:0" dtype: DT_INT32 ` + dims("1")), "<- name, dtype, shape"},
		{"an input that is not there", input("") + `inputs { key: "mask" value { } }`, "<- the model has no such input"},
		{"an output that is not there", input("") + `outputs { key: "mask" value { } }`, "<- the model has no such output"},
		{"an input left out", `outputs { key: "scores" value { } }`, "<- not asserted, and it has no default"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want pb.SignatureDef
			if err := prototext.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			err := AssertSignature(&want, "serving_default", got)
			if tt.fault == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if !errors.Is(err, ErrAssertion) || !strings.Contains(err.Error(), tt.fault) || strings.Count(err.Error(), "<-") != 1 {
				t.Fatalf("got %v, want %q once", err, tt.fault)
			}
			if !strings.Contains(err.Error(), "image: serving_default_image:0 DT_FLOAT [-1,28,28,1]") { // the model's side
				t.Errorf("not side by side: %v", err)
			}
		})
	}
}

func TestAssert(t *testing.T) {
	info := mustRead(t, modeltest.HalfPlusTwo())
	if err := Assert(info, nil); err != nil {
		t.Error(err)
	}
	if err := Assert(info, info.Defs); err != nil { // a model is what it says itself
		t.Error(err)
	}
	info.Refused["sparse"] = "it is sparse"
	err := Assert(info, map[string]*pb.SignatureDef{"predict": {}, "serving_default": {}, "sparse": {}})
	for _, want := range []string{`no signature "predict", only [serving_default]`, "<- not asserted", "it is sparse"} {
		if !errors.Is(err, ErrAssertion) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q too", err, want)
		}
	}
}
