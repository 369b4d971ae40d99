// witness.go: a model that leaves a trace of each run.
package modeltest

import "github.com/inferd/inferd/inference/tensor"

// Witness is y = 0.5x + 2 for x FLOAT[-1,1], and each run appends a line to the file at path with the values of x in it, separated by commas. Its
// graph has PrintV2, which deny_ops refuses unless allow_ops names it.
func Witness(path string) *Model {
	b := newBuilder("witness")
	b.placeholder("x", floatT, column)
	b.node("AsString", "words", []string{"x"}, attrs{"T": floatT, "precision": 0})
	b.constant("axes", Int32s(tensor.Shape{2}, 0, 1))
	b.node("ReduceJoin", "line", []string{"words", "axes"}, attrs{"keep_dims": false, "separator": ","})
	b.node("PrintV2", "print", []string{"line"}, attrs{"output_stream": "file://" + path, "end": "\n"})
	b.constant("slope", Floats(scalar, 0.5))
	b.constant("offset", Floats(scalar, 2))
	b.node("Mul", "mul", []string{"x", "slope", "^print"}, attrs{"T": floatT})
	b.node("AddV2", "y", []string{"mul", "offset"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}
