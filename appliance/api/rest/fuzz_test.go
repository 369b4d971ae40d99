// fuzz_test.go: no document panics, the two readers agree, and what was read is read again from what was written.
package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// fuzzed are the versions that a document is read for: each type alone, and two inputs.
func fuzzed() []*inference.Version {
	var all []*inference.Version
	for _, d := range []tensor.DType{tensor.Float, tensor.Double, tensor.Int32, tensor.Int16, tensor.Int8, tensor.Uint8, tensor.Int64, tensor.Uint32,
		tensor.Uint64, tensor.Bool, tensor.String, tensor.Half} {
		all = append(all, one(in("x", d)))
	}
	all = append(all, one(picture("x", tensor.Float)), one(picture("a", tensor.Uint8), in("b", tensor.Float)))
	return append(all, one(in("a", tensor.Int32), in("b", tensor.String)), version(map[string][]inference.TensorInfo{"s": {in("x", tensor.Double)}}))
}

func FuzzPredictBody(f *testing.F) {
	for _, body := range []string{`{"instances":[1,2.5,-3e-2]}`, `{"inputs":[[1,2],[3,4]]}`, `{"signature_name":"s","inputs":{"x":[NaN,-Infinity]}}`,
		`{"instances":[{"a":1,"b":"x"},{"b":{"b64":"aGVsbG8="},"a":2}]}`, `{"instances":[{"b64":"aGVsbG8="},"\ud83d\ude00\\n"]}`,
		`{"inputs":{"x":true,"y":[{}]},"z":null} trailing`, `{"instances":[{"a":{"b64":"aGVsbG8="},"b":1},{"b":2,"a":{"b64":""}}]}`, `{"instances":[[],[1]]}`, `{"inputs":[[[[0e-1]]]],"inputs":1}`, `{"instances":[1,[2]]}`,
		`{"instances":[123456789012345678901234567890e-10,0.00000000000000000001]}`, `{"instances":[18446744073709551616,1E400]}`, "\xef\xbb\xbf{}", "[", ""} {
		f.Add([]byte(body), false)
		f.Add([]byte(body), true)
	}
	versions := fuzzed()
	f.Fuzz(func(t *testing.T, doc []byte, strict bool) {
		body := pad(string(doc))
		for _, v := range versions {
			d := &decoder{strict: strict, maxBytes: 1 << 16}
			e := explainer{b: body, strict: strict, maxBytes: 1 << 16}
			accepted := d.decode(body, v)
			why := e.explain(v)
			if strings.HasPrefix(why.Msg, "the request was not understood") != accepted {
				t.Fatalf("accepted %v, and explained as: %s", accepted, why.Msg)
			}
			if _, _, bad := e.prologue(); strict && bad == nil && !json.Valid(doc) && !laxer(doc) {
				t.Fatalf("strict, and encoding/json refuses it")
			}
			if accepted {
				again(t, d, v)
			}
		}
		// What encoding/json accepts is no syntax error, but for depth, numbers too big and lone surrogates.
		if json.Valid(doc) {
			if end, err := skip(body, begin(body), strict); err != nil && err.text != errDeep && err.text != errTooBig && err.text != errSurrogate {
				t.Fatalf("valid, but %s at %d", err.text, err.offset)
			} else if err == nil && body[space(body, end)] != 0 {
				t.Fatalf("valid to %d only", end)
			}
		}
	})
}

// laxer reports whether RapidJSON accepts what encoding/json does not: a byte order mark, or a NUL as the end.
func laxer(doc []byte) bool {
	return bytes.HasPrefix(doc, []byte("\xef\xbb\xbf")) || bytes.IndexByte(doc, 0) >= 0
}

// again writes the tensors as a request in the same form and reads it back.
func again(t *testing.T, d *decoder, v *inference.Version) {
	want := ""
	for _, in := range d.inputs {
		want += show(in) + ";"
	}
	sig := d.sig
	infos := append([]inference.TensorInfo(nil), sig.Inputs...)
	var wanted []int
	for i := range infos {
		if d.inputs[i].DType == tensor.String { // as it is declared, or files
			infos[i].DType = tensor.String
			infos[i].Alias += "_bytes" // so that no byte is lost
		}
		wanted = append(wanted, i)
	}
	if d.row && d.inputs[0].Shape[0] == 0 {
		t.Fatal("no rows")
	}
	e := encoder{}
	if err := e.response(d.row, infos, wanted, d.inputs); err != nil {
		t.Fatalf("%s was read and is not written: %s", want, err.Msg)
	}
	from, to := `"outputs"`, `"inputs"`
	if d.row {
		from, to = `"predictions"`, `"instances"`
	}
	text := strings.Replace(string(e.out), from, to, 1)
	for i := range infos {
		text = strings.ReplaceAll(text, fmt.Sprintf("%q: ", infos[i].Alias), fmt.Sprintf("%q: ", sig.Inputs[i].Alias))
	}
	text = fmt.Sprintf(`{"signature_name":%q,%s`, sig.Key, text[1:])
	back := &decoder{maxBytes: 1 << 20}
	if !back.decode(pad(text), v) {
		t.Fatalf("%s was written and is not read: %s", want, text)
	}
	got := ""
	for _, in := range back.inputs {
		got += show(in) + ";"
	}
	if got != want {
		t.Fatalf("read %s\nthen %s\nfrom %s", want, got, text)
	}
}
