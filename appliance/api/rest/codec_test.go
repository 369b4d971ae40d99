// codec_test.go: away from the door, requests and answers are what they are at it.
package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// echo answers with the inputs, through a codec.
func echo(c api.Codec, body string, v *inference.Version) (string, *inference.Error) {
	call, err := c.Decode([]byte(body), v)
	if err != nil {
		return "", err
	}
	defer call.Free()
	out, err := call.Append([]byte("before "), inference.NewResponse(call.Request().Inputs, nil))
	return strings.TrimPrefix(string(out), "before "), err
}

func TestCodecAnswersAsTheDoorDoes(t *testing.T) {
	v := version(map[string][]inference.TensorInfo{inference.DefaultSignature: {in("x", tensor.Float)},
		"pair": {in("a", tensor.Int64), in("b_bytes", tensor.String)}, "text": {in("s", tensor.String)}, "half": {in("h", tensor.Half)}})
	a := serve(t, Options{}, v, &servable{})
	c, compact := NewCodec(CodecOptions{}), NewCodec(CodecOptions{Compact: true})
	for _, body := range []string{
		`{"instances":[1,2.5,3]}`, `{"inputs":[[1,2],[3,4]]}`, `{"id":"1","model":"m","instances":[[]],"deadline_ms":7}`,
		`{"signature_name":"pair","instances":[{"a":1,"b_bytes":"x"},{"b_bytes":{"b64":"aGk="},"a":2}]}`,
		`{"signature_name":"pair","inputs":{"a":[1,2],"b_bytes":["p","q"]}}`, `{"signature_name":"text","instances":["ä\u0007"]}`,
		`{"instances":[]}`, `{"instances":[1,[2]]}`, `{"instances":["x"]}`, `{"signature_name":"none","instances":[1]}`, `[]`, ``, `{"instances":[1`,
		`{"inputs":1,"instances":[2]}`, `{}`, `{"signature_name":"half","instances":[1]}`,
	} {
		resp, want := a.do(t, "POST", "/v1/models/m:predict", body)
		got, err := echo(c, body, v)
		if err != nil {
			got = string(appendError(nil, err.Msg))
		}
		if (err == nil) != (resp.StatusCode == http.StatusOK) || got != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
		short, err := echo(compact, body, v)
		if err != nil {
			continue
		}
		var plain bytes.Buffer
		if err := json.Compact(&plain, []byte(want)); err != nil || plain.String() != short {
			t.Errorf("%s\n got %s\nwant %s, %v", body, short, plain.String(), err)
		}
	}
	// What TensorFlow Serving sends as it is, a text frame may not hold.
	if got, err := echo(compact, "{\"signature_name\":\"text\",\"instances\":[\"\xff\"]}", v); err != nil || !utf8.ValidString(got) || got != "{\"predictions\":[\"\ufffd\"]}" {
		t.Errorf("bytes that are not UTF-8 became %q, %v", got, err)
	}
}

func TestCodecIsForMany(t *testing.T) {
	v, c := one(in("x", tensor.Float)), NewCodec(CodecOptions{Compact: true})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			want := `{"predictions":[` + strings.Repeat("1.5,", i) + `2.0]}`
			for range 200 {
				if got, err := echo(c, `{"instances":[`+strings.Repeat("1.5,", i)+`2]}`, v); err != nil || got != want {
					t.Errorf("got %s, %v", got, err)
					return
				}
			}
		})
	}
	all.Wait()
}
