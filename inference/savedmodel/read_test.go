// read_test.go: whole folders, torn ones, and those that were made to be a nuisance.
package savedmodel

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

func mustRead(t *testing.T, m *modeltest.Model) *Info {
	t.Helper()
	info, err := Read(modeltest.Write(t, m), nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestSignatures(t *testing.T) {
	const batch, alone, writes = "batch", "alone", "writes"
	tests := []struct {
		model *modeltest.Model
		want  map[string]string // by key: how it may be run, and why
	}{
		{modeltest.HalfPlusTwo(), map[string]string{"serving_default": batch}},
		{modeltest.TwoLayer(), map[string]string{"serving_default": batch}},
		{modeltest.Strings(), map[string]string{"serving_default": batch}},
		{modeltest.VariableLength(), map[string]string{"serving_default": batch}},
		{modeltest.TFExample(), map[string]string{"serving_default": batch}},
		{modeltest.Sleepy(), map[string]string{"serving_default": batch}},
		{modeltest.NeverReturns(), map[string]string{"serving_default": batch}},
		{modeltest.Crasher(), map[string]string{"serving_default": batch}},
		{modeltest.Scalar(), map[string]string{"serving_default": alone + `: input "x" is a scalar`}},
		{modeltest.FixedBatch(), map[string]string{"serving_default": alone + `: the first dimension of input "x" is fixed: [1,3]`}},
		{modeltest.Dequeues(), map[string]string{"serving_default": writes + `: it changes the model's state (QueueDequeueV2 in node "dequeue")`}},
		{modeltest.KeepsInput(), map[string]string{ // the assignment is a control input of the output only
			"serving_default": writes + `: it changes the model's state (AssignVariableOp in node "keep")`, "kept": alone + ": it has no inputs",
		}},
		{modeltest.Functions(), map[string]string{ // two functions deep
			"serving_default": batch, "recall": alone + ": it has no inputs",
			"remember": writes + `: it changes the model's state (AssignVariableOp in function "assign")`,
		}},
		{modeltest.Counter(), map[string]string{
			"get_counter":     alone + ": it has no inputs",
			"incr_counter":    writes + `: it changes the model's state (AssignAdd in node "incr")`,
			"incr_counter_by": writes + `: it changes the model's state (AssignAdd in node "incr_by")`,
			"reset_counter":   writes + `: it changes the model's state (Assign in node "reset")`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.model.Name, func(t *testing.T) {
			info := mustRead(t, tt.model)
			got := make(map[string]string)
			for key, s := range info.Signatures {
				switch {
				case s.Writes:
					got[key] = writes + ": " + s.Unbatchable
				case s.Batchable:
					got[key] = batch
				default:
					got[key] = alone + ": " + s.Unbatchable
				}
				if s.Batchable == (s.Unbatchable != "") || s.Key != key || s.Method != "tensorflow/serving/predict" {
					t.Errorf("%s: %+v", key, s)
				}
			}
			if !maps.Equal(got, tt.want) || len(info.Refused) != 0 {
				t.Errorf("got %v, refused %v, want %v", got, info.Refused, tt.want)
			}
		})
	}
}

func TestInfo(t *testing.T) {
	info := mustRead(t, modeltest.Functions())
	want := []string{"AddV2", "AssignVariableOp", "Const", "Identity", "Mul", "NoOp", "PartitionedCall", "Placeholder", "ReadVariableOp", "RestoreV2",
		"StatefulPartitionedCall", "VarHandleOp"}
	if !slices.Equal(info.Ops, want) {
		t.Errorf("ops %v, want %v", info.Ops, want)
	}
	if info.VariableBytes != 4 || !slices.Equal(info.Tags, []string{"serve"}) {
		t.Errorf("%+v", info)
	}
	st, err := os.Stat(filepath.Join(info.Dir, "saved_model.pb"))
	if err != nil || st.Size() != info.GraphBytes {
		t.Errorf("graph of %d bytes, file of %v, %v", info.GraphBytes, st, err)
	}
	big := mustRead(t, modeltest.BigVariables(3, 0))
	if EstimateBytes(big)-EstimateBytes(info) < 3<<20 || EstimateBytes(info) < 1<<20 {
		t.Errorf("estimates %d and %d", EstimateBytes(info), EstimateBytes(big))
	}
}

func TestSignatureDetails(t *testing.T) {
	m := modeltest.TwoInputs()
	d := m.Meta.SignatureDef["serving_default"]
	d.Inputs["a"].Dtype += 100 // a reference
	d.Inputs["a"].TensorShape = nil
	d.Inputs["b"].TensorShape = &shapepb.TensorShapeProto{UnknownRank: true}
	m.Meta.SignatureDef["__saved_model_init_op"] = &pb.SignatureDef{Outputs: map[string]*pb.TensorInfo{
		"__saved_model_init_op": {Encoding: &pb.TensorInfo_Name{Name: "NoOp"}}}}
	info := mustRead(t, m)
	s := info.Signatures["serving_default"]
	if len(info.Signatures) != 1 || len(info.Defs) != 2 || len(info.Refused) != 0 {
		t.Fatalf("signatures %v, defs %v, refused %v", info.Signatures, info.Defs, info.Refused)
	}
	for _, in := range s.Inputs {
		if in.DType != tensor.Float || !in.UnknownRank || in.Shape != nil {
			t.Errorf("%+v", in)
		}
	}
	if !s.Batchable { // an unknown rank does not stand in the way
		t.Error(s.Unbatchable)
	}
	if s.Input("a") != 0 || s.Input("b") != 1 || s.Output("diff") != 0 || s.Output("sum") != 1 {
		t.Errorf("not sorted: %v, %v", s.Inputs, s.Outputs)
	}
}

// TensorFlow 2 saves a ragged input as two dense ones, which must not be joined with another request's.
func TestRaggedInputIsNotBatched(t *testing.T) {
	ragged := func(splits tensor.DType, rank int) *inference.Signature {
		m := modeltest.TwoInputs()
		d := m.Meta.SignatureDef["serving_default"]
		any := &shapepb.TensorShapeProto_Dim{Size: -1}
		d.Inputs["a"].TensorShape.Dim = []*shapepb.TensorShapeProto_Dim{any}
		d.Inputs["a_1"] = d.Inputs["b"]
		delete(d.Inputs, "b")
		d.Inputs["a_1"].Dtype = typespb.DataType(splits)
		d.Inputs["a_1"].TensorShape.Dim = slices.Repeat([]*shapepb.TensorShapeProto_Dim{any}, rank)
		return mustRead(t, m).Signatures["serving_default"]
	}
	if s := ragged(tensor.Int64, 1); s.Batchable || !strings.Contains(s.Unbatchable, "row splits of a ragged tensor") {
		t.Errorf("values and row splits: %+v", s)
	}
	for _, s := range []*inference.Signature{ragged(tensor.Int64, 2), ragged(tensor.Float, 1)} {
		if !s.Batchable {
			t.Errorf("no row splits: %s", s.Unbatchable)
		}
	}
}

func TestRefusedSignatures(t *testing.T) {
	name := func(s string) *pb.TensorInfo_Name { return &pb.TensorInfo_Name{Name: s} }
	tests := []struct {
		name, want string
		change     func(s *pb.SignatureDef)
	}{
		{"sparse", `input "x" is a sparse tensor`, func(s *pb.SignatureDef) {
			s.Inputs["x"].Encoding = &pb.TensorInfo_CooSparse_{CooSparse: &pb.TensorInfo_CooSparse{ValuesTensorName: "x:0"}}
		}},
		{"composite", `output "y" is a composite tensor`, func(s *pb.SignatureDef) {
			s.Outputs["y"].Encoding = &pb.TensorInfo_CompositeTensor_{CompositeTensor: &pb.TensorInfo_CompositeTensor{}}
		}},
		{"resource", `input "x" is DT_RESOURCE`, func(s *pb.SignatureDef) { s.Inputs["x"].Dtype = typespb.DataType_DT_RESOURCE }},
		{"no type", `output "y" is DT_INVALID`, func(s *pb.SignatureDef) { s.Outputs["y"].Dtype = 0 }},
		{"no name", `input "x" names no tensor`, func(s *pb.SignatureDef) { s.Inputs["x"].Encoding = name("") }},
		{"no node", `output "y" is tensor "nowhere:0", which the graph does not have`, func(s *pb.SignatureDef) { s.Outputs["y"].Encoding = name("nowhere:0") }},
		{"dimension", "dimension -2", func(s *pb.SignatureDef) { s.Inputs["x"].TensorShape.Dim[0].Size = -2 }},
		{"rank", "300 dimensions", func(s *pb.SignatureDef) {
			s.Inputs["x"].TensorShape.Dim = slices.Repeat(s.Inputs["x"].TensorShape.Dim[:1], 300)
		}},
		{"no outputs", "no outputs", func(s *pb.SignatureDef) { s.Outputs = nil }},
		{"default's type", "the default of input", func(s *pb.SignatureDef) {
			s.Defaults = map[string]*tensorpb.TensorProto{"x": {Dtype: typespb.DataType_DT_INT32}}
		}},
		{"default too large", "is not read", func(s *pb.SignatureDef) {
			s.Defaults = map[string]*tensorpb.TensorProto{"x": {Dtype: typespb.DataType_DT_FLOAT, TensorShape: &shapepb.TensorShapeProto{
				Dim: []*shapepb.TensorShapeProto_Dim{{Size: 1 << 40}}}}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := modeltest.HalfPlusTwo()
			good := proto.CloneOf(m.Meta.SignatureDef["serving_default"])
			tt.change(m.Meta.SignatureDef["serving_default"])
			m.Meta.SignatureDef["other"] = good
			info := mustRead(t, m)
			if info.Signatures["other"] == nil || len(info.Signatures) != 1 || !strings.Contains(info.Refused["serving_default"], tt.want) {
				t.Errorf("signatures %v, refused %v", info.Signatures, info.Refused)
			}
		})
	}
}

func TestTags(t *testing.T) {
	m := modeltest.HalfPlusTwo()
	m.Meta.MetaInfoDef.Tags = []string{"serve", "gpu"}
	dir := modeltest.Write(t, m)
	if _, err := Read(dir, []string{"gpu", "serve"}); err != nil {
		t.Error(err)
	}
	_, err := Read(dir, nil)
	if !errors.Is(err, ErrTags) || !strings.Contains(err.Error(), "{serve,gpu}") {
		t.Errorf("got %v, want the tag sets that there are", err)
	}

	two := modeltest.HalfPlusTwo().Proto() // the second of two meta graphs, with a signature of its own
	second := modeltest.Scalar()
	second.Meta.MetaInfoDef.Tags = []string{"other"}
	two.MetaGraphs = append(two.MetaGraphs, second.Meta)
	write(t, filepath.Join(dir, "saved_model.pb"), encode(t, two))
	info, err := Read(dir, []string{"other"})
	if err != nil || info.Signatures["serving_default"].Batchable {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestTextForm(t *testing.T) {
	m := modeltest.HalfPlusTwo()
	dir := modeltest.Write(t, m)
	text, err := prototext.Marshal(m.Proto())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "saved_model.pb")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "saved_model.pbtxt"), text)
	info, err := Read(dir, nil)
	if err != nil || !info.Signatures["serving_default"].Batchable {
		t.Fatalf("got %+v, %v", info, err)
	}
	write(t, filepath.Join(dir, "saved_model.pbtxt"), text[:len(text)/2])
	if _, err := Read(dir, nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("half a text: %v", err)
	}
}

func TestTornFolders(t *testing.T) {
	const index, shard = "variables/variables.index", "variables/variables.data-00000-of-00001"
	tests := []struct {
		name string
		want error
		text string
		tear func(dir string) error
	}{
		{"empty folder", ErrNone, "saved_model.pb", func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)) }},
		{"no folder", ErrNone, "saved_model.pb", os.RemoveAll},
		{"empty graph", ErrIncomplete, "no meta graph", func(dir string) error { return os.Truncate(filepath.Join(dir, "saved_model.pb"), 0) }},
		{"no graph", ErrNone, "", func(dir string) error { return os.Remove(filepath.Join(dir, "saved_model.pb")) }},
		{"no variables", ErrIncomplete, "the graph restores variables", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "variables")) }},
		{"no index", ErrIncomplete, "variables.index is not there", func(dir string) error { return os.Remove(filepath.Join(dir, index)) }},
		{"empty index", ErrIncomplete, "ends too early", func(dir string) error { return os.Truncate(filepath.Join(dir, index), 0) }},
		{"no shard", ErrIncomplete, "variables.data-00000-of-00001, which is not there", func(dir string) error { return os.Remove(filepath.Join(dir, shard)) }},
		{"half a shard", ErrIncomplete, "which has 10000", func(dir string) error { return os.Truncate(filepath.Join(dir, shard), 10000) }},
		{"no asset", ErrIncomplete, `asset "words.txt"`, func(dir string) error { return os.Remove(filepath.Join(dir, "assets/words.txt")) }},
		{"too large", ErrUnsupported, "2 GB", func(dir string) error { return os.Truncate(filepath.Join(dir, "saved_model.pb"), 3<<30) }},
		{"in pieces", ErrUnsupported, "saved_model.cpb", func(dir string) error {
			return os.Rename(filepath.Join(dir, "saved_model.pb"), filepath.Join(dir, "saved_model.cpb"))
		}},
		{"a fifo", nil, "not a regular file", func(dir string) error {
			p := filepath.Join(dir, "saved_model.pb")
			return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644))
		}},
		{"a folder for a file", nil, "not a regular file", func(dir string) error {
			p := filepath.Join(dir, "saved_model.pb")
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := modeltest.Write(t, withAsset())
			if _, err := Read(dir, nil); err != nil {
				t.Fatalf("whole: %v", err)
			}
			if err := tt.tear(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Read(dir, nil)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

func withAsset() *modeltest.Model {
	m := modeltest.TwoLayer()
	m.Meta.AssetFileDef = []*pb.AssetFileDef{{Filename: "words.txt"}}
	m.Assets = map[string][]byte{"words.txt": []byte("a b c")}
	return m
}

func TestAssetsOfTensorFlow1(t *testing.T) {
	m := modeltest.HalfPlusTwo()
	a, err := anypb.New(&pb.AssetFileDef{Filename: "foo.txt"})
	if err != nil {
		t.Fatal(err)
	}
	m.Meta.CollectionDef = map[string]*pb.CollectionDef{
		"saved_model_assets": {Kind: &pb.CollectionDef_AnyList_{AnyList: &pb.CollectionDef_AnyList{Value: []*anypb.Any{a}}}},
		"something_else":     {Kind: &pb.CollectionDef_AnyList_{AnyList: &pb.CollectionDef_AnyList{Value: []*anypb.Any{a}}}},
	}
	if _, err := Read(modeltest.Write(t, m), nil); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "foo.txt") {
		t.Errorf("without the asset: %v", err)
	}
	m.Assets = map[string][]byte{"foo.txt": nil}
	if info := mustRead(t, m); !slices.Equal(info.Assets, []string{"foo.txt"}) {
		t.Errorf("assets %v", info.Assets)
	}
	m.Meta.AssetFileDef = []*pb.AssetFileDef{{Filename: "../../../etc/passwd"}}
	if _, err := Read(modeltest.Write(t, m), nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an asset outside: %v", err)
	}
}

// No beginning of a file may pass for the whole, however it was cut.
func TestEveryCutIsNoticed(t *testing.T) {
	for _, file := range []string{"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"} {
		dir := modeltest.Write(t, modeltest.HalfPlusTwo())
		path := filepath.Join(dir, file)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range whole {
			write(t, path, whole[:n])
			if _, err := Read(dir, nil); !errors.Is(err, ErrIncomplete) {
				t.Errorf("%s cut to %d of %d bytes: %v", file, n, len(whole), err)
			}
		}
		write(t, path, whole)
		if _, err := Read(dir, nil); err != nil {
			t.Errorf("whole again: %v", err)
		}
	}
}

// The same for the text form: what is cut off behind the last brace is nothing.
func TestEveryCutOfATextIsNoticed(t *testing.T) {
	m := modeltest.Scalar()
	dir := modeltest.Write(t, m)
	text, err := prototext.Marshal(m.Proto())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "saved_model.pb")); err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndexByte(string(text), '}')
	for n := 0; n < len(text); n += 5 { // parsing text takes long
		write(t, filepath.Join(dir, "saved_model.pbtxt"), text[:n])
		if _, err := Read(dir, nil); !errors.Is(err, ErrIncomplete) != (n > last) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(text), err)
		}
	}
}

// A graph is read without holding its constants.
func TestConstantsAreNotHeld(t *testing.T) {
	m := modeltest.MatrixHalfPlusTwo()
	for _, n := range m.Meta.GraphDef.Node {
		if n.Op == "Const" {
			n.Attr["value"].GetTensor().TensorContent = make([]byte, 24<<20)
		}
	}
	dir := modeltest.Write(t, m)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	info, err := Read(dir, nil)
	runtime.ReadMemStats(&after)
	if err != nil || info.GraphBytes < 48<<20 {
		t.Fatalf("%+v, %v", info, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
		t.Errorf("reading a graph with 48 MiB of constants allocated %d bytes", used)
	}
}

func TestGraphOfNamesIsBounded(t *testing.T) {
	g := newGraph()
	g.held = maxNames - 100
	b := encode(t, modeltest.HalfPlusTwo().Meta.GraphDef)
	err := g.read(newWire(strings.NewReader(string(b))), field{bytes: true, end: int64(len(b))})
	if err == nil || !strings.Contains(err.Error(), "names take more than") {
		t.Errorf("got %v", err)
	}
}

func TestChangesState(t *testing.T) {
	for _, op := range []string{"Assign", "AssignAddVariableOp", "ResourceApplyAdam", "ResourceScatterNdUpdate", "ScatterNdUpdate", "ScatterAdd", "QueueEnqueueV2",
		"QueueDequeueManyV2", "LookupTableInsertV2", "WriteFile", "SaveV2", "IteratorGetNext", "StatefulUniform", "ApplyMomentum", "BarrierTakeMany",
		"AccumulatorTakeGradient", "ResourceStridedSliceAssign", "Stage", "WriteScalarSummary"} {
		if !changesState(op) {
			t.Errorf("%s changes state", op)
		}
	}
	for _, op := range []string{"ScatterNd", "ScatterNdNonAliasingAdd", "TensorScatterUpdate", "LookupTableFindV2", "ReadFile", "ReadVariableOp", "ResourceGather",
		"QueueSizeV2", "TensorArrayWriteV3", "StackPushV2", "RandomUniform", "StatelessRandomUniformV2", "StatefulPartitionedCall", "BarrierReadySize", "MapDataset",
		"Stack", "StridedSlice", "AccumulateNV2", "HashTableV2", "Print"} {
		if changesState(op) {
			t.Errorf("%s changes no state", op)
		}
	}
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
