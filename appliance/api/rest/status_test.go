// status_test.go: status, metadata and the list, byte for byte.
package rest

import (
	"encoding/json"
	"os"
	"testing"

	framework "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	types "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestStatus(t *testing.T) {
	a := serve(t, Options{}, one(in("x", tensor.Float)), &servable{})
	a.catalog.SetStatus("m", inference.VersionStatus{Version: 12, State: inference.StateEnd, Code: inference.FailedPrecondition, Message: `no op "<X>"`})
	a.catalog.SetLabels("m", map[string]int64{"stable": 7})
	const seven = "  {\n   \"version\": \"7\",\n   \"state\": \"AVAILABLE\",\n   \"status\": {\n    \"error_code\": \"OK\",\n    \"error_message\": \"\"\n   }\n  }"
	const twelve = "  {\n   \"version\": \"12\",\n   \"state\": \"END\",\n   \"status\": {\n    \"error_code\": \"FAILED_PRECONDITION\",\n    \"error_message\": \"no op \\\"\\u003cX\\u003e\\\"\"\n   }\n  }"
	for path, want := range map[string]string{
		"/v1/models/m":               "{\n \"model_version_status\": [\n" + twelve + ",\n" + seven + "\n ]\n}\n",
		"/v1/models/m/versions/7":    "{\n \"model_version_status\": [\n" + seven + "\n ]\n}\n",
		"/v1/models/m/labels/stable": "{\n \"model_version_status\": [\n" + seven + "\n ]\n}\n",
	} {
		if resp, got := a.do(t, "GET", path, ""); got != want || resp.StatusCode != 200 {
			t.Errorf("%s: %d\n%s\nwant\n%s", path, resp.StatusCode, got, want)
		}
	}
	if o := a.last(t, 3); o.Method != "status" || o.Model != "m" {
		t.Errorf("observed %+v", o)
	}
}

func TestList(t *testing.T) {
	a := serve(t, Options{}, nil, nil)
	if _, got := a.do(t, "GET", "/v1/models", ""); got != "{\n \"models\": []\n}\n" {
		t.Errorf("with no models: %s", got)
	}
	a.catalog.Publish(one(in("x", tensor.Float)), &servable{})
	a.catalog.SetStatus("m", inference.VersionStatus{Version: 9, State: inference.StateLoading})
	a.catalog.SetStatus("bad", inference.VersionStatus{Version: 1, State: inference.StateEnd, Code: inference.Internal, Message: "broken"})
	a.catalog.Add("new")
	_, got := a.do(t, "GET", "/V1/MODELS", "")
	var list struct {
		Models []struct {
			Name, State string
			Versions    []struct {
				Version, State string
				Status         map[string]string
			}
		}
	}
	if err := json.Unmarshal([]byte(got), &list); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if len(list.Models) != 3 {
		t.Fatalf("got %s", got)
	}
	bad, m, fresh := list.Models[0], list.Models[1], list.Models[2]
	if bad.Name != "bad" || bad.State != "END" || bad.Versions[0].Status["error_message"] != "broken" || bad.Versions[0].Status["error_code"] != "INTERNAL" {
		t.Errorf("bad: %+v", bad)
	}
	if m.Name != "m" || m.State != "AVAILABLE" || len(m.Versions) != 2 || m.Versions[0].Version != "9" || m.Versions[0].State != "LOADING" {
		t.Errorf("m: %+v", m)
	}
	if fresh.Name != "new" || fresh.State != "UNKNOWN" || len(fresh.Versions) != 0 {
		t.Errorf("new: %+v", fresh)
	}
}

func TestMetadata(t *testing.T) {
	shape := func(dims ...int64) *framework.TensorShapeProto {
		s := &framework.TensorShapeProto{}
		for _, d := range dims {
			s.Dim = append(s.Dim, &framework.TensorShapeProto_Dim{Size: d})
		}
		return s
	}
	named := func(d types.DataType, s *framework.TensorShapeProto, name string) *pb.TensorInfo {
		return &pb.TensorInfo{Dtype: d, TensorShape: s, Encoding: &pb.TensorInfo_Name{Name: name}}
	}
	v := one()
	v.Defs = map[string]*pb.SignatureDef{
		"serving_default": {
			Inputs:     map[string]*pb.TensorInfo{"x": named(types.DataType_DT_FLOAT, shape(-1, 1), "x:0")},
			Outputs:    map[string]*pb.TensorInfo{"y": named(types.DataType_DT_FLOAT, shape(-1, 1), "y:0")},
			MethodName: "tensorflow/serving/predict",
		},
		"classify": {
			Inputs:     map[string]*pb.TensorInfo{"inputs": named(types.DataType_DT_STRING, &framework.TensorShapeProto{UnknownRank: true}, "tf_example:0")},
			MethodName: "tensorflow/serving/classify",
		},
		"__saved_model_init_op": {
			Outputs: map[string]*pb.TensorInfo{"__saved_model_init_op": named(types.DataType_DT_INVALID, shape(), "NoOp")},
		},
		"odd": {
			Inputs: map[string]*pb.TensorInfo{
				"no_shape": named(types.DataType_DT_FLOAT_REF, nil, "a:0"),
				"sparse": {Dtype: types.DataType_DT_INT64, Encoding: &pb.TensorInfo_CooSparse_{CooSparse: &pb.TensorInfo_CooSparse{
					ValuesTensorName: "v:0", IndicesTensorName: "i:0", DenseShapeTensorName: "s:0"}}},
			},
			Outputs: map[string]*pb.TensorInfo{"ragged": {Encoding: &pb.TensorInfo_CompositeTensor_{CompositeTensor: &pb.TensorInfo_CompositeTensor{
				Components: []*pb.TensorInfo{named(types.DataType_DT_INT32, shape(2), "c:0")}}}}},
		},
	}
	a := serve(t, Options{}, v, &servable{})
	want, err := os.ReadFile("testdata/metadata.json")
	if err != nil {
		t.Fatal(err)
	}
	resp, got := a.do(t, "GET", "/v1/models/m/Metadata", "")
	if got != string(want) || resp.StatusCode != 200 {
		t.Errorf("%d\n%s\nwant\n%s", resp.StatusCode, got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("this is not JSON")
	}
	if _, again := a.do(t, "GET", "/v1/models/m/versions/7/metadata", ""); again != got {
		t.Errorf("by version: %s", again)
	}
	if o := a.last(t, 2); o.Method != "metadata" || o.Version != 7 {
		t.Errorf("observed %+v", o)
	}
}
