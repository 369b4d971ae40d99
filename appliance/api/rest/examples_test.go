// examples_test.go: :classify and :regress: documents, results and errors as TensorFlow Serving has them.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	examplepb "github.com/wamuir/graft/tensorflow/core/example/example_protos_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func readExamples(body string, strict bool) (string, *tensor.Tensor, *inference.Error) {
	e := exampleReader{b: pad(body), strict: strict, maxBytes: 1 << 16, booked: 1 << 20}
	return e.read()
}

// said is an Example in one line, by the generated code.
func said(t *testing.T, b []byte) string {
	t.Helper()
	var e examplepb.Example
	if err := proto.Unmarshal(b, &e); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if len(e.ProtoReflect().GetUnknown()) > 0 {
		t.Fatalf("%x has unknown fields", b)
	}
	var all []string
	for name, f := range e.GetFeatures().GetFeature() {
		switch k := f.GetKind().(type) {
		case *examplepb.Feature_BytesList:
			all = append(all, fmt.Sprintf("%s=%q", name, k.BytesList.Value))
		case *examplepb.Feature_FloatList:
			all = append(all, fmt.Sprintf("%s=float%v", name, k.FloatList.Value))
		case *examplepb.Feature_Int64List:
			all = append(all, fmt.Sprintf("%s=int%v", name, k.Int64List.Value))
		default:
			all = append(all, name+"=nothing")
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestExamplesOfJSON(t *testing.T) {
	for body, want := range map[string]string{
		`{"examples":[{"x":1.0}]}`:                                           "x=float[1]",
		`{"examples":[{"x":1}]}`:                                             "x=int[1]",
		`{"examples":[{"x":1e0},{"x":[1.5,-2.5]},{}]}`:                       "x=float[1] | x=float[1.5 -2.5] | ",
		`{"examples":[{"x":true,"y":[false,7]}],"signature_name":"s"}`:       "s: x=int[1] y=int[0 7]",
		`{"examples":[{"s":"a","b":{"b64":"aGVsbG8="},"l":["p","q"]}]}`:      `b=["hello"] l=["p" "q"] s=["a"]`,
		`{"examples":[{"x":[]}]}`:                                            "x=nothing",
		`{"examples":[{"b64":"aGVsbG8="}]}`:                                  `b64=["aGVsbG8="]`,
		`{"context":{"c":9},"examples":[{"x":1.5},{"c":8}]}`:                 "c=int[9] x=float[1.5] | c=int[8]",
		`{"examples":[{"x":1.5}],"context":{}}`:                              "x=float[1.5]",
		`{"examples":[{"x":NaN,"y":-Infinity,"z":1e300}]}`:                   "x=float[NaN] y=float[-Inf] z=float[+Inf]",
		`{"examples":[{"x":9223372036854775807,"y":-9223372036854775808}]}`:  "x=int[9223372036854775807] y=int[-9223372036854775808]",
		`{"examples":[{"x":18446744073709551616}]}`:                          "x=float[1.8446744e+19]",
		`{"examples":[{"x":1,"x":2.5}],"examples":[],"other":[{}]} trailing`: "x=float[2.5]",
		`{"examples":[{"a\"\u00e9":"\u0000"}]}`:                              `a"é=["\x00"]`,
		`{"signature_name":"","examples":[{"x":-0.0}]}`:                      "x=float[-0]",
		`{"context":{"c":1},"context":{"d":1},"examples":[{}]}`:              "c=int[1]",
		`! `:                                         `JSON Parse error: The document is empty`,
		`! []`:                                       `JSON Value: [] Is not object`,
		`! {"examples"`:                              "JSON Parse error: Missing a colon after a name of object member. at offset: 11",
		`! {}`:                                       "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
		`! {"instances":[1]}`:                        "JSON Value: {\n    \"instances\": [1]\n} When method is classify, key 'examples' is expected and was not found",
		`! {"examples":{}}`:                          "JSON Value: {\n    \"examples\": {}\n} Expecting 'examples' value to be an list/array",
		`! {"examples":[]}`:                          "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
		`! {"signature_name":1,"examples":[{}]}`:     "JSON Value: {\n    \"signature_name\": 1,\n    \"examples\": [{}]\n} not formatted correctly. 'signature_name' key must be a string value.",
		`! {"examples":[[1.0]]}`:                     "Example must be JSON object but got JSON Array",
		`! {"examples":[{},1]}`:                      "Example must be JSON object but got JSON Number",
		`! {"context":null,"examples":1}`:            "Example must be JSON object but got JSON Null",
		`! {"context":{"c":null}}`:                   "Feature: c has element with unexpected JSON type: Null",
		`! {"examples":[{"x":[[1]]}]}`:               "Feature: x has element with unexpected JSON type: Array",
		`! {"examples":[{"x":{"y":1}}]}`:             "Feature: x has element with unexpected JSON type: Object",
		`! {"examples":[{"x":{"b64":"a"}}]}`:         "Unable to base64 decode",
		`! {"examples":[{"x":[1,2.5]}]}`:             "Unexpected element type in feature: x expecting type: int64",
		`! {"examples":[{"x":[1.5,2]}]}`:             "Unexpected element type in feature: x expecting type: float",
		`! {"examples":[{"x":["a",true]}]}`:          "Unexpected element type in feature: x expecting type: bytes",
		`! {"examples":[{"x":[1,"a"]}]}`:             "Unexpected element type in feature: x expecting type: int64",
		`! {"examples":[{"x":[1,{"b64":""}]}]}`:      "Unexpected element type in feature: x expecting type: int64",
		`! {"examples":[{"x":9223372036854775808}]}`: "Feature: x has uint64_t element. Only int64_t is supported.",
		`! {"examples":[` + strings.Repeat("{},", api.MaxExamples) + `{}]}`:                                          "the request has more than 65536 examples",
		`! {"context":{"c":"` + strings.Repeat("c", 1<<10) + `"},"examples":[` + strings.Repeat("{},", 100) + `{}]}`: "the examples, each with the context before it, take more than 65536 bytes of memory; send fewer per request",
	} {
		body, bad := strings.CutPrefix(body, "! ")
		key, x, err := readExamples(body, false)
		if bad {
			if err == nil || err.Msg != want {
				t.Errorf("%.100s: %v, want %s", body, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		var rows []string
		for _, s := range x.Strings {
			rows = append(rows, said(t, s))
		}
		got := strings.Join(rows, " | ")
		if key != "" {
			got = key + ": " + got
		}
		if got != want || !x.Shape.Equal(tensor.Shape{int64(len(rows))}) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if _, _, err := readExamples(`{"examples":[{"x":NaN}]}`, true); err == nil {
		t.Error("strict, and NaN was read")
	}
}

// estimator is model m, version 7, with signatures for both acts.
func estimator() *inference.Version {
	v := &inference.Version{Model: "m", Number: 7, Signatures: map[string]*inference.Signature{}}
	add := func(key string, outputs ...inference.TensorInfo) {
		v.Signatures[key] = &inference.Signature{Key: key, Inputs: []inference.TensorInfo{in("inputs", tensor.String)}, Outputs: outputs}
	}
	classes, scores := in("classes", tensor.String), in("scores", tensor.Float)
	add(inference.DefaultSignature, classes, scores)
	add("classes", classes)
	add("scores", scores)
	add("regress", in("outputs", tensor.Float))
	return v
}

func TestClassifyAndRegress(t *testing.T) {
	for name, c := range map[string]struct {
		path, body string
		outputs    []*tensor.Tensor
		status     int
		want       string
	}{
		"classify": {"m:classify", `{"examples":[{},{}]}`, []*tensor.Tensor{texts(tensor.Shape{2, 2}, "a", "b\n", "c", ""), float32s(tensor.Shape{2, 2}, 0.5, 0.25, 1, float32(math.Inf(-1)))}, 200,
			"{\n    \"results\": [[[\"a\", 0.5], [\"b\\n\", 0.25]], [[\"c\", 1.0], [\"\", -Infinity]]\n    ]\n}"},
		"labels alone":           {"m/versions/7:classify", `{"signature_name":"classes","examples":[{}]}`, []*tensor.Tensor{texts(tensor.Shape{1, 1}, "a")}, 200, "{\n    \"results\": [[[\"a\", 0.0]]\n    ]\n}"},
		"scores alone":           {"m:Classify", `{"signature_name":"scores","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1, 1}, 2)}, 200, "{\n    \"results\": [[[\"\", 2.0]]\n    ]\n}"},
		"no classes":             {"m:classify", `{"signature_name":"scores","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1, 0})}, 200, "{\n    \"results\": [[]\n    ]\n}"},
		"regress":                {"m:regress", `{"signature_name":"regress","examples":[{},{}]}`, []*tensor.Tensor{float32s(tensor.Shape{2, 1}, 0.1, 3)}, 200, "{\n    \"results\": [0.1, 3.0]\n}"},
		"regress, flat":          {"m:regress", `{"signature_name":"regress","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1}, -4)}, 200, "{\n    \"results\": [-4.0]\n}"},
		"document before model":  {"n:classify", `{"examples":[]}`, nil, 400, "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"},
		"no such model":          {"n:classify", `{"examples":[{}]}`, nil, 404, "Servable not found for request: Latest(n)"},
		"no such signature":      {"m:classify", `{"signature_name":"s","examples":[{}]}`, nil, 400, "No signature was found with the name: s"},
		"classifies":             {"m:regress", `{"examples":[{}]}`, nil, 400, "Expected one output Tensor."},
		"regresses":              {"m:classify", `{"signature_name":"regress","examples":[{}]}`, nil, 400, `Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: inputs {inputs} outputs {outputs}`},
		"scores of another type": {"m:classify", `{"signature_name":"scores","examples":[{}]}`, []*tensor.Tensor{float64s(tensor.Shape{1, 1}, 1)}, 400, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"},
		"labels of another type": {"m:classify", `{"signature_name":"classes","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1, 1}, 1)}, 400, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"},
		"flat scores":            {"m:classify", `{"signature_name":"scores","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1}, 1)}, 400, "Expected Tensor shape: [batch_size num_classes] but got [1]"},
		"too many rows":          {"m:classify", `{"signature_name":"scores","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{2, 1}, 1, 2)}, 400, "Expected scores output batch size of 1. Got: 2"},
		"two widths":             {"m:classify", `{"examples":[{}]}`, []*tensor.Tensor{texts(tensor.Shape{1, 1}, "a"), float32s(tensor.Shape{1, 2}, 1, 2)}, 400, "Tensors class and score should match in dim_size(1). Got 1 vs. 2"},
		"wide regression":        {"m:regress", `{"signature_name":"regress","examples":[{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1, 2}, 1, 2)}, 400, "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"},
		"short regression":       {"m:regress", `{"signature_name":"regress","examples":[{},{}]}`, []*tensor.Tensor{float32s(tensor.Shape{1}, 1)}, 400, "Input batch size did not match output batch size: 2 vs. 1"},
		"regression of doubles":  {"m:regress", `{"signature_name":"regress","examples":[{}]}`, []*tensor.Tensor{float64s(tensor.Shape{1}, 1)}, 400, "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"},
	} {
		t.Run(name, func(t *testing.T) {
			released := 0
			a := serve(t, Options{}, estimator(), &servable{predict: func(_ context.Context, req *inference.Request) (*inference.Response, error) {
				return inference.NewResponse(c.outputs, func() { released++ }), nil
			}})
			resp, got := a.do(t, "POST", "/v1/models/"+c.path, c.body)
			want := c.want
			if c.status != 200 {
				want = string(appendError(nil, want))
			}
			if resp.StatusCode != c.status || got != want {
				t.Errorf("%d %s\nwant %d %s", resp.StatusCode, got, c.status, want)
			}
			o := a.last(t, 1)
			if act := strings.ToLower(c.path[strings.IndexByte(c.path, ':')+1:]); o.Method != act || (o.Code == inference.OK) != (c.status == 200) {
				t.Errorf("observed %+v", o)
			}
			if c.status == 200 && (o.Version != 7 || o.Signature == "") {
				t.Errorf("observed %+v", o)
			}
			if (released == 1) != (c.outputs != nil) {
				t.Errorf("the response was released %d times", released)
			}
		})
	}
}

// FuzzExamplesBody: no document panics; what is read is what encoding/json and the generated code make of it.
func FuzzExamplesBody(f *testing.F) {
	for _, body := range []string{`{"examples":[{"x":1.5,"y":[1,2,true]},{"s":["a",{"b64":"aGVsbG8="}]}],"context":{"c":"d"}}`, `{"signature_name":"s","examples":[{"x":[]}]}`,
		`{"examples":[{"x":18446744073709551615}]}`, `{"examples":[{"x":1e39,"x":[{}]}]}`, `{"context":{},"examples":[{},{}]}`, `{"examples":[1]`} {
		f.Add(body, false)
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body string, strict bool) {
		_, x, err := readExamples(body, strict)
		if err != nil {
			if err.Msg == "" || err.Code == inference.OK {
				t.Fatalf("an error without a reason: %+v", err)
			}
			return
		}
		for _, s := range x.Strings {
			if utf8.ValidString(body) && !strings.Contains(body, `\u`) {
				said(t, s)
			}
		}
		var doc map[string]json.RawMessage
		if !json.Valid([]byte(body)) || json.Unmarshal([]byte(body), &doc) != nil || !utf8.ValidString(body) || strings.Contains(body, `\u`) || strings.Count(body, "examples") > 1 || strings.Count(body, "context") > 1 {
			return
		}
		var list []map[string]any
		d := json.NewDecoder(bytes.NewReader(doc["examples"]))
		d.UseNumber()
		if err := d.Decode(&list); err != nil || len(list) != len(x.Strings) {
			t.Fatalf("%d examples were read, and %d by encoding/json (%v)", len(x.Strings), len(list), err)
		}
		for i, features := range list {
			var e examplepb.Example
			if err := proto.Unmarshal(x.Strings[i], &e); err != nil {
				t.Fatal(err)
			}
			for name, value := range features {
				got := e.GetFeatures().GetFeature()[name]
				if got == nil {
					t.Fatalf("feature %q is missing in %v", name, &e)
				}
				values, ok := value.([]any)
				if !ok {
					values = []any{value}
				}
				if n := len(got.GetBytesList().GetValue()) + len(got.GetFloatList().GetValue()) + len(got.GetInt64List().GetValue()); n != len(values) {
					t.Fatalf("feature %q has %d values of %d", name, n, len(values))
				}
				for k, v := range values {
					switch v := v.(type) {
					case string:
						if string(got.GetBytesList().GetValue()[k]) != v {
							t.Fatalf("%q is not %q", got, v)
						}
					case bool:
						if (got.GetInt64List().GetValue()[k] == 1) != v {
							t.Fatalf("%v is not %v", got, v)
						}
					case json.Number:
						if n, err := v.Int64(); err == nil && !strings.ContainsAny(v.String(), ".eE") {
							if got.GetInt64List().GetValue()[k] != n {
								t.Fatalf("%v is not %v", got, v)
							}
						} else if f, _ := v.Float64(); math.Abs(f) < math.MaxFloat32 && math.Abs(float64(got.GetFloatList().GetValue()[k])-f) > math.Abs(f)/(1<<23)+1e-40 {
							t.Fatalf("%v is not %v", got, v)
						}
					}
				}
			}
		}
	})
}
