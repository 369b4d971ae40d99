// fuzz_test.go: no body and no path panics, and what is accepted is what its shapes say.
package oiprest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

func FuzzInferBody(f *testing.F) {
	for _, body := range []string{`{"id":"1","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2.5e3]}],"outputs":[{"name":"x","parameters":{"binary_data":true}}]}`,
		`{"inputs":[{"data":[[1],[-2]],"name":"x","shape":[2,1],"datatype":"INT8"}],"parameters":{"timeout":1,"priority":1,"sequence_id":0,"signature_name":"s"}}`,
		`{"inputs":[{"name":"s","shape":[1],"datatype":"BYTES","data":["\ud83d\ude00"]},{"name":"b","shape":[],"datatype":"BOOL","data":true},{"name":"u","shape":[1],"datatype":"UINT16","data":[65535]}]}`,
		`{"inputs":[{"name":"x","shape":[0],"datatype":"UINT64","data":[[],[]]}]} `, `[`, ``, "\xef\xbb\xbf{}", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":{"b64":"aa"}}]}`} {
		f.Add([]byte(body), -1, false)
		f.Add([]byte(body), -1, true)
	}
	binary := `{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}},{"name":"s","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":9}}]}`
	f.Add([]byte(binary+"ab\x01\x00\x00\x00a\x00\x00\x00\x00"), len(binary), false)
	f.Add([]byte("abcd"), 0, false)
	v := version(in("b", tensor.Bool), in("s", tensor.String, -1), in("u", tensor.Uint16, -1), in("x", tensor.Float, -1))
	single := version(in("x", tensor.Float, -1, 2))
	f.Fuzz(func(t *testing.T, body []byte, length int, strict bool) {
		s := take()
		s.body = pad(string(body))
		if length < -1 {
			length = -1
		}
		err := s.read(length, strict, 1<<16)
		if !bytes.Equal(s.body[:len(body)], body) {
			t.Fatal("the body has changed")
		}
		if err != nil {
			if err.Msg == "" || err.Reason == "" || len(err.Msg) > 4096 {
				t.Fatalf("an error of %d bytes and reason %q", len(err.Msg), err.Reason)
			}
			return
		}
		if length < 0 && strict && !json.Valid(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))) && !bytes.ContainsAny(body, "\x00\\\x80\xff") && utf8Only(body) {
			t.Fatalf("accepted, and encoding/json does not: %q", body)
		}
		for i := range s.doc.inputs {
			c := &s.doc.inputs[i].content
			if c.DType == tensor.String {
				if _, err := tensor.NewStrings(c.Shape, c.Strings); err != nil {
					t.Fatal(err)
				}
			} else if _, err := tensor.New(c.DType, c.Shape, c.Data); err != nil {
				t.Fatal(err)
			}
		}
		use := v
		if length == 0 {
			use = single
		}
		req, err := s.request(use, length)
		if err != nil {
			return
		}
		var outputs []*tensor.Tensor
		for _, k := range req.Outputs {
			outputs = append(outputs, req.Inputs[k])
		}
		out, header, err := s.want.encode(nil, use, req.Signature, s.doc.id, outputs, true)
		if err != nil {
			return
		}
		if header >= 0 {
			out = out[:header]
		}
		if !json.Valid(out) {
			t.Fatalf("the answer is no JSON: %q", out)
		}
	})
}

// utf8Only: encoding/json lets other bytes through, and so do we; only what both take for text is compared.
func utf8Only(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 || c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"", "/health/live", "/models/m/versions/7/infer", "/models/%2F/ready", "/models/stats", "/repository/models/m/load", "//models//m", "/models/%zz"} {
		f.Add("GET", p)
		f.Add("POST", p)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI("http://h/v2" + path)
		if err != nil {
			return
		}
		to, bad := parse(&http.Request{Method: method, URL: u})
		switch {
		case bad != nil && (bad.Msg == "" || len(bad.Msg) > 2048):
			t.Fatalf("%d bytes of error", len(bad.Msg))
		case bad == nil && to.act == "":
			t.Fatal("no act")
		case bad == nil && to.spec.Model == "" && (to.act == actPredict || to.act == actMetadata || to.act == actModel || to.act == actLoad || to.act == actUnload):
			t.Fatalf("%s of no model", to.act)
		}
	})
}

func FuzzAsk(f *testing.F) {
	f.Add([]byte(`{"ready":true,"parameters":{"a":1}}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v2/repository/index", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if _, bad := ask(nil, r); bad != nil && bad.Msg == "" {
			t.Fatal("an error without a text")
		}
	})
}
