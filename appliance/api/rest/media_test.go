// media_test.go: files in JSON, where the input takes them.
package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

// dot is a PNG picture of 2 by 2 pixels, all of them 10, 20, 30 times n, in base64.
func dot(tb testing.TB, n uint8) string {
	tb.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 2, 2))
	for i := range 4 {
		m.SetRGBA(i%2, i/2, color.RGBA{10 * n, 20 * n, 30 * n, 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		tb.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestFilesInJSON(t *testing.T) {
	one64, two64 := dot(t, 1), dot(t, 2)
	first, second := "[[[10,20,30],[10,20,30]],[[10,20,30],[10,20,30]]]", "[[[20,40,60],[20,40,60]],[[20,40,60],[20,40,60]]]"
	single := version(map[string][]inference.TensorInfo{inference.DefaultSignature: {picture("x", tensor.Uint8)}})
	pair := version(map[string][]inference.TensorInfo{inference.DefaultSignature: {in("n", tensor.Int32), picture("x", tensor.Uint8)}})
	for _, test := range []struct {
		name string
		v    *inference.Version
		body string
		want string // of the answer, without white space; outputs are the inputs
	}{
		{"rows", single, `{"instances":[{"b64":"` + one64 + `"},{"b64":"` + two64 + `"}]}`, `{"predictions":[` + first + `,` + second + `]}`},
		{"named rows", single, `{"instances":[{"x":{"b64":"` + one64 + `"}}]}`, `{"predictions":[` + first + `]}`},
		{"rows of two inputs", pair, `{"instances":[{"n":7,"x":{"b64":"` + one64 + `"}},{"x":{"b64":"` + two64 + `"},"n":8}]}`, `{"predictions":[{"n":7,"x":` + first + `},{"n":8,"x":` + second + `}]}`},
		{"one column", single, `{"inputs":[{"b64":"` + one64 + `"},{"b64":"` + two64 + `"}]}`, `{"outputs":[` + first + `,` + second + `]}`},
		{"one file alone", single, `{"inputs":{"b64":"` + one64 + `"}}`, `{"outputs":[` + first + `]}`},
		{"a named file alone", single, `{"inputs":{"x":{"b64":"` + one64 + `"}}}`, `{"outputs":[` + first + `]}`},
		{"columns", pair, `{"inputs":{"x":[{"b64":"` + one64 + `"}],"n":[7]}}`, `{"outputs":{"n":[7],"x":[` + first + `]}}`},
		{"numbers as ever", single, `{"instances":[` + second + `]}`, `{"predictions":[` + second + `]}`},

		{"mixed rows", single, `{"instances":[{"b64":"` + one64 + `"},[[1]]]}`, "INVALID_ARGUMENT: JSON Value: [[1]]: files and numbers are mixed; send all rows of an input as files"},
		{"mixed named rows", pair, `{"instances":[{"n":1,"x":1},{"n":1,"x":{"b64":"AA=="}}]}`, "files and numbers are mixed"},
		{"text for a file", single, `{"inputs":[{"b64":"` + one64 + `"},"abc"]}`, `JSON Value: \"abc\" Type: String is not a file; send it as {\"b64\": ...}`},
		{"text alone", single, `{"instances":["abc"]}`, `JSON Value: \"abc\" Type: String is not of expected type: uint8`},
		{"not base64", single, `{"instances":[{"b64":"%"}]}`, "Unable to base64 decode"},
		{"lists of lists", single, `{"instances":[[{"b64":"` + one64 + `"}]]}`, `input \"x\": files in lists of shape [1,1]; send one file, or one list of files`},
		{"no picture", single, `{"instances":[{"b64":"aGVsbG8="}]}`, `input \"x\": it is no file of a known kind, and this input takes PNG; send such a file`},
		{"an input without media", pair, `{"instances":[{"n":{"b64":"AA=="},"x":{"b64":"AA=="}}]}`, "Type: Object is not of expected type: int32"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := serve(t, Options{}, test.v, &servable{})
			resp, got := a.do(t, "POST", "/v1/models/m:predict", test.body)
			squeezed := strings.Join(strings.Fields(got), "")
			if resp.StatusCode == 200 && squeezed == test.want {
				return
			}
			if resp.StatusCode == 200 || strings.HasPrefix(test.want, "{") || !strings.Contains(squeezed, strings.Join(strings.Fields(test.want), "")) {
				t.Errorf("HTTP %d %s\nwant %s", resp.StatusCode, got, test.want)
			}
		})
	}
}

// TestFilesOverTheLimit: of their own, and of what they become.
func TestFilesOverTheLimit(t *testing.T) {
	v := one(picture("x", tensor.Float))
	body := fmt.Sprintf(`{"instances":[{"b64":"%s"},{"b64":"%s"}]}`, dot(t, 1), dot(t, 2))
	d := &decoder{maxBytes: 100}
	if d.decode(pad(body), v) {
		t.Error("files of more than the limit were kept")
	}
	e := explainer{b: pad(body), maxBytes: 100}
	if err := e.explain(v); err.Reason != inference.ReasonTooLarge {
		t.Error(err)
	}
}

// TestMediaCodec: a file alone is the request, and the answer is :predict's.
func TestMediaCodec(t *testing.T) {
	file, err := base64.StdEncoding.DecodeString(dot(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	takes := func(sig *inference.Signature, batchable bool) *inference.Signature {
		sig.Batchable = batchable
		return sig
	}
	takesFiles, plain := picture("x", tensor.Uint8), in("x", tensor.Uint8)
	for _, test := range []struct {
		name string
		v    *inference.Version
		want string // of the answer, or of the error
	}{
		{"rows", one(takesFiles), `{"predictions":[[[[10,20,30],[10,20,30]],[[10,20,30],[10,20,30]]]]}`},
		{"without rows", one(takesFiles), `{"outputs":[[[[10,20,30],[10,20,30]],[[10,20,30],[10,20,30]]]]}`},
		{"another signature", version(map[string][]inference.TensorInfo{inference.DefaultSignature: {plain}, "pictures": {takesFiles}}), `{"predictions":[[[[10`},
		{"no such input", one(plain), "model m version 7 has no signature whose only input takes files"},
		{"not the only input", one(in("n", tensor.Int32), takesFiles), "has no signature whose only input takes files"},
		{"two signatures", version(map[string][]inference.TensorInfo{"a": {takesFiles}, "b": {takesFiles}}), "could be for the signatures a, b of model m version 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, sig := range test.v.Signatures {
				takes(sig, test.name != "without rows")
			}
			c := NewMediaCodec(CodecOptions{Compact: true})
			call, bad := c.Decode(file, test.v)
			if bad != nil {
				if !strings.Contains(bad.Msg, test.want) {
					t.Errorf("%v, want %s", bad, test.want)
				}
				return
			}
			defer call.Free()
			req := call.Request()
			if err := api.DecodeFiles(t.Context(), req, 0, nil); err != nil {
				t.Fatal(err)
			}
			got, bad := call.Append([]byte("x"), inference.NewResponse(req.Inputs, nil))
			if bad != nil || !strings.HasPrefix(string(got[1:]), test.want) {
				t.Errorf("%s, %v\nwant %s", got, bad, test.want)
			}
		})
	}
}

// TestMetadataOfMedia: clients are told what an input takes beside its tensor.
func TestMetadataOfMedia(t *testing.T) {
	a := serve(t, Options{}, version(map[string][]inference.TensorInfo{"s": {in("n", tensor.Int32), picture("x", tensor.Float)}, "plain": {in("n", tensor.Int32)}}), &servable{})
	_, got := a.do(t, "GET", "/v1/models/m/metadata", "")
	var doc struct {
		Metadata struct {
			Media map[string]map[string]media.Description
		}
	}
	if err := json.Unmarshal([]byte(got), &doc); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	x := doc.Metadata.Media["s"]["x"]
	if len(doc.Metadata.Media) != 1 || len(doc.Metadata.Media["s"]) != 1 || x.Format != media.PNG || x.Height != 2 || x.Scale != 1 {
		t.Errorf("%+v in %s", doc, got)
	}
}
