// reach.go: a model that reaches for files.
package modeltest

import "github.com/inferd/inferd/inference/tensor"

// Reaches has a signature for each way to a file. Each takes "path", a STRING scalar: "read" answers "contents", "list" takes a pattern and
// answers "files", STRING[-1]; "write" and "save" write there (a text, and a checkpoint of one tensor) and answer "done", the path. Each counts
// itself in a variable, so that none is run with a made-up path. deny_ops refuses all of it. See [Witness] for PrintV2, whose file is a constant.
func Reaches() *Model {
	b := newBuilder("reaches")
	in := []io{{"path", "path", tensor.String, scalar}}
	b.placeholder("path", tensor.String, scalar)

	asked, _ := b.variable("asked", Floats(scalar, 0))
	b.constant("one", Floats(scalar, 1))
	b.node("AssignAddVariableOp", "count", []string{asked, "one"}, attrs{"dtype": floatT})

	b.node("ReadFile", "read_file", []string{"path"}, nil)
	b.node("Identity", "contents", []string{"read_file", "^count"}, attrs{"T": tensor.String})
	b.sign("read", in, []io{{"contents", "contents", tensor.String, scalar}})

	b.node("MatchingFiles", "match", []string{"path"}, nil)
	b.node("Identity", "files", []string{"match", "^count"}, attrs{"T": tensor.String})
	b.sign("list", in, []io{{"files", "files", tensor.String, vector}})

	b.constant("text", &tensor.Tensor{DType: tensor.String, Shape: scalar, Strings: [][]byte{[]byte("written by a model\n")}})
	b.node("WriteFile", "write", []string{"path", "text"}, nil)
	b.node("Identity", "written", []string{"path", "^write", "^count"}, attrs{"T": tensor.String})
	b.sign("write", in, []io{{"done", "written", tensor.String, scalar}})

	b.constant("names", Strings1D([]byte("t")))
	b.constant("slices", Strings1D([]byte("")))
	b.constant("t", Floats(scalar, 1))
	b.node("SaveV2", "save_it", []string{"path", "names", "slices", "t"}, attrs{"dtypes": []tensor.DType{floatT}})
	b.node("Identity", "saved", []string{"path", "^save_it", "^count"}, attrs{"T": tensor.String})
	b.sign("save", in, []io{{"done", "saved", tensor.String, scalar}})
	return b.model()
}

// Text is a STRING scalar, as the signatures of [Reaches] take it.
func Text(s string) *tensor.Tensor {
	return &tensor.Tensor{DType: tensor.String, Shape: scalar, Strings: [][]byte{[]byte(s)}}
}
