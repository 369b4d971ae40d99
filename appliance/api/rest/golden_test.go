// golden_test.go: golden cases as they are written by hand and from answers.
package rest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func goldenSignatures() map[string]*inference.Signature {
	return map[string]*inference.Signature{
		inference.DefaultSignature: {Key: inference.DefaultSignature, Inputs: []inference.TensorInfo{in("x", tensor.Float)}, Outputs: []inference.TensorInfo{in("y", tensor.Float)}},
		"two": {Key: "two", Inputs: []inference.TensorInfo{in("a", tensor.Int32), in("b", tensor.String)},
			Outputs: []inference.TensorInfo{in("label", tensor.String), in("score", tensor.Double)}},
	}
}

func TestDecodeGolden(t *testing.T) {
	for _, tt := range []struct{ name, doc, want string }{
		{"rows", `{"instances":[1,2],"predictions":[2.5,3]}`, ` serving_default x=DT_FLOAT[2] y=DT_FLOAT[2] 1e-05 1e-05`},
		{"columns", `{"inputs":{"x":[[1]]},"outputs":[[2.5]],"name":"first","tolerance":0.01}`, `first serving_default x=DT_FLOAT[1,1] y=DT_FLOAT[1,1] 0.01 0.01`},
		{"rows to columns", `{"instances":[1],"outputs":{"y":[2.5]}, "rtol": 1e-3, "atol": 0}`, ` serving_default x=DT_FLOAT[1] y=DT_FLOAT[1] 0.001 0`},
		{"one tolerance over both", `{"atol":1,"instances":[1],"outputs":2.5,"tolerance":0}`, ` serving_default x=DT_FLOAT[1] y=DT_FLOAT[] 0 1`},
		{"numbers that are none", `{"instances":[NaN],"predictions":[NaN]}`, ` serving_default x=DT_FLOAT[1] y=DT_FLOAT[1] 1e-05 1e-05`},
		{"two outputs in rows", `{"signature_name":"two","instances":[{"a":1,"b":"x"}],"predictions":[{"score":0.5,"label":"yes"}]}`,
			` two a=DT_INT32[1] b=DT_STRING[1] label=DT_STRING[1] score=DT_DOUBLE[1] 1e-05 1e-05`},
		{"one of two outputs", `{"signature_name":"two","inputs":{"a":1,"b":"x"},"outputs":{"score":0.5}}`, ` two a=DT_INT32[] b=DT_STRING[] score=DT_DOUBLE[] 1e-05 1e-05`},
		{"empty", ``, "! JSON Parse error: The document is empty"},
		{"cut", `{"instances":[1],"pred`, "! JSON Parse error"},
		{"no object", `[1]`, "! Is not object"},
		{"two documents", `{"instances":[1],"predictions":[1]}{}`, "! must not be followed by other values. at offset: 35"},
		{"NUL and more", "{\"instances\":[1],\"predictions\":[1]}\x00{}", "! must not be followed by other values. at offset: 35"},
		{"nothing expected", `{"instances":[1]}`, `! either "predictions" or "outputs"`},
		{"twice expected", `{"instances":[1],"outputs":1,"predictions":[1]}`, `! either "predictions" or "outputs"`},
		{"nothing sent", `{"predictions":[1]}`, "! Missing 'inputs' or 'instances' key"},
		{"a misspelt key", `{"instances":[1],"predictions":[1],"tolerances":1}`, `! has no "tolerances"; it has name, signature_name`},
		{"a key that is two", `{"instances":[1],"predictions":[1],"rtol|atol":1}`, `! has no "rtol|atol"`},
		{"a key twice", `{"instances":[1],"instances":[2],"predictions":[1]}`, `! has "instances" twice`},
		{"another type sent", `{"instances":["a"],"predictions":[1]}`, "! is not of expected type: float"},
		{"another type expected", `{"instances":[1],"predictions":["a"]}`, "! what is expected (predictions) cannot be read: "},
		{"a ragged list expected", `{"instances":[1],"outputs":[[1],[2,3]]}`, "! what is expected (outputs) cannot be read: Encountered list at unexpected size"},
		{"no rows expected", `{"instances":[1],"predictions":[]}`, "! it has no rows"},
		{"no list expected", `{"instances":[1],"predictions":1}`, "! is no list"},
		{"an output that is not there", `{"instances":[1],"outputs":{"z":1}}`, `! signature "serving_default" has no output "z"`},
		{"no output named", `{"instances":[1],"outputs":{}}`, "! names no output"},
		{"a signature that is not there", `{"signature_name":"gone","instances":[1],"predictions":[1]}`, `! "gone" not found in signature def`},
		{"a tolerance below zero", `{"instances":[1],"predictions":[1],"tolerance":-1}`, `! "tolerance" must be a number that is not below zero`},
		{"a tolerance in words", `{"instances":[1],"predictions":[1],"rtol":"1"}`, `! "rtol" must be a number`},
		{"a tolerance that is none", `{"instances":[1],"predictions":[1],"atol":NaN}`, `! "atol" must be a number`},
		{"a name that is none", `{"instances":[1],"predictions":[1],"name":1}`, `! "name" must be a string`},
	} {
		g, err := DecodeGolden([]byte(tt.doc), goldenSignatures())
		if want, bad := strings.CutPrefix(tt.want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", tt.name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := g.Name + " " + g.Request.Signature.Key
		for i, x := range g.Request.Inputs {
			got += fmt.Sprintf(" %s=%s%v", g.Request.Signature.Inputs[i].Alias, x.DType, x.Shape)
		}
		for i, y := range g.Want {
			if y != nil {
				got += fmt.Sprintf(" %s=%s%v", g.Request.Signature.Outputs[i].Alias, y.DType, y.Shape)
			}
		}
		if got += fmt.Sprintf(" %v %v", g.RTol, g.ATol); !strings.EqualFold(got, tt.want) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestEveryCutOfAGoldenCaseIsNoticed: no beginning of a case passes for one.
func TestEveryCutOfAGoldenCaseIsNoticed(t *testing.T) {
	const doc = `{"name":"n","signature_name":"two","instances":[{"a":1,"b":{"b64":"eA=="}}],"predictions":[{"score":1.5e-3,"label":"yes"}],"rtol":0,"atol":1}`
	for n := range len(doc) {
		if g, err := DecodeGolden([]byte(doc[:n]), goldenSignatures()); err == nil {
			t.Errorf("cut to %q: %+v", doc[:n], g)
		}
	}
	if _, err := DecodeGolden([]byte(doc), goldenSignatures()); err != nil {
		t.Error(err)
	}
}

func FuzzGolden(f *testing.F) {
	for _, doc := range []string{`{"instances":[1,2],"predictions":[2.5,3],"tolerance":1e-3}`, `{"signature_name":"two","inputs":{"a":1,"b":"x"},"outputs":{"score":0.5},"name":"n"}`,
		`{"signature_name":"two","instances":[{"a":1,"b":{"b64":"eA=="}}],"predictions":[{"score":NaN,"label":"yes"}],"rtol":0,"atol":1}`, `{"outputs":{}}`, "", "{"} {
		f.Add([]byte(doc))
	}
	signatures := goldenSignatures()
	f.Fuzz(func(t *testing.T, doc []byte) {
		g, err := DecodeGolden(doc, signatures)
		if err != nil {
			if inference.AsError(err).Msg == "" {
				t.Error("an error without words")
			}
			return
		}
		sig, wanted := g.Request.Signature, 0
		if len(g.Request.Inputs) != len(sig.Inputs) || len(g.Want) != len(sig.Outputs) || len(g.Request.Outputs) != len(sig.Outputs) || !(g.RTol >= 0) || !(g.ATol >= 0) {
			t.Fatalf("%+v", g)
		}
		for i, w := range g.Want {
			if w == nil {
				continue
			}
			wanted++
			if n, err := w.Shape.Elements(); w.DType != sig.Outputs[i].DType || err != nil || int(n) != elements(w) {
				t.Fatalf("%v of %v", w, sig.Outputs[i])
			}
		}
		if wanted == 0 {
			t.Fatal("nothing is expected")
		}
	})
}
