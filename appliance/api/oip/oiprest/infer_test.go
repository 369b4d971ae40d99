// infer_test.go: infer requests in JSON, with binary tensors and without JSON, and everything that is wrong with them.
package oiprest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// answered is the JSON of an answer of model m with these outputs.
func answered(outputs string) string {
	return `{"model_name":"m","model_version":"7","outputs":[` + outputs + `]}`
}

func TestInferJSON(t *testing.T) {
	for _, c := range []struct {
		name    string
		dtype   tensor.DType
		shape   string
		data    string
		written string // empty: as data
	}{
		{"flat", tensor.Float, "[2,2]", "[1.0,2.5,-3.0,0.1]", ""},
		{"nested", tensor.Float, "[2,2]", "[[1, 2.5],[-3,\n0.1]]", "[1.0,2.5,-3.0,0.1]"},
		{"nested otherwise by ones", tensor.Float, "[3]", "[[1],[2],[3]]", "[1.0,2.0,3.0]"},
		{"scalar", tensor.Float, "[]", "7", "[7.0]"},
		{"scalar in a list", tensor.Double, "[]", "[1e300]", "[1e+300]"},
		{"nothing", tensor.Int64, "[0,3]", "[]", ""},
		{"FP64", tensor.Double, "[2]", "[0.1,-2.0]", ""},
		{"INT8", tensor.Int8, "[3]", "[-128,0,127]", ""},
		{"INT16", tensor.Int16, "[2]", "[-32768,32767]", ""},
		{"INT32", tensor.Int32, "[2]", "[-2147483648,2147483647]", ""},
		{"INT64", tensor.Int64, "[2]", "[-9223372036854775808,9223372036854775807]", ""},
		{"UINT8", tensor.Uint8, "[2]", "[0,255]", ""},
		{"UINT16", tensor.Uint16, "[2,1]", "[[0],[65535]]", "[0,65535]"},
		{"UINT32", tensor.Uint32, "[1]", "[4294967295]", ""},
		{"UINT64", tensor.Uint64, "[1]", "[18446744073709551615]", ""},
		{"BOOL", tensor.Bool, "[2]", "[true,false]", ""},
		{"BYTES", tensor.String, "[2]", `["caf\u00e9 \"","" ]`, `["café \"",""]`},
		{"BYTES as base64", tensor.String, "[1,1]", `[[{"b64":"aGk="}]]`, `["hi"]`},
		{"NaN", tensor.Float, "[3]", "[NaN,Infinity,-Infinity]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			info := in("x", c.dtype)
			info.UnknownRank = true
			h := serve(t, Options{}, oip.Options{}, version(info))
			body := fmt.Sprintf(`{"inputs":[{"name":"x","shape":%s,"datatype":"%s","data":%s}]}`, c.shape, oip.Datatype(c.dtype), c.data)
			moved := fmt.Sprintf(`{"inputs":[{"data":%s,"datatype":"%s","shape":%s,"name":"x","more":{"a":[null]}}],"more":1}`, c.data, oip.Datatype(c.dtype), c.shape)
			written := c.written
			if written == "" {
				written = c.data
			}
			want := answered(fmt.Sprintf(`{"name":"x","datatype":"%s","shape":%s,"data":%s}`, oip.Datatype(c.dtype), c.shape, written))
			for _, body := range []string{body, moved} {
				resp, got := h.do(t, "POST", "/v2/models/m/infer", body)
				if resp.StatusCode != 200 || got != want {
					t.Errorf("%s\n%d %s\nwant %s", body, resp.StatusCode, got, want)
				}
				if ct := resp.Header.Get("Content-Type"); ct != "application/json" || resp.Header.Get(LengthHeader) != "" {
					t.Errorf("Content-Type %q, %s %q", ct, LengthHeader, resp.Header.Get(LengthHeader))
				}
			}
		})
	}
}

// TestInferBinary sends each type raw and has it answered raw: the same bytes come back.
func TestInferBinary(t *testing.T) {
	for d := tensor.Float; d < 64; d++ {
		if !d.Carried() {
			continue
		}
		raw, count := strings.Repeat("\x01\x00", 4*d.Size()), 8
		if d == tensor.String {
			raw, count = "\x02\x00\x00\x00\xff\x00\x00\x00\x00\x00", 2
		}
		info := in("x", d, -1)
		h := serve(t, Options{}, oip.Options{}, version(info))
		json := fmt.Sprintf(`{"id":"a\"b","parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[%d],"datatype":"%s","parameters":{"binary_data_size":%d}}]}`, count, oip.Datatype(d), len(raw))
		resp, got := h.infer(t, json, raw)
		head := fmt.Sprintf(`{"model_name":"m","model_version":"7","id":"a\"b","outputs":[{"name":"x","datatype":"%s","shape":[%d],"parameters":{"binary_data_size":%d}}]}`, oip.Datatype(d), count, len(raw))
		if resp.StatusCode != 200 || got != head+raw {
			t.Errorf("%v: %d %q\nwant %q", d, resp.StatusCode, got, head+raw)
		}
		if ct, n := resp.Header.Get("Content-Type"), resp.Header.Get(LengthHeader); ct != "application/octet-stream" || n != strconv.Itoa(len(head)) {
			t.Errorf("%v: Content-Type %q, %s %q, want %d", d, ct, LengthHeader, n, len(head))
		}
	}
}

func TestInferMixed(t *testing.T) {
	h := serve(t, Options{}, oip.Options{}, version(in("a", tensor.Int32, -1), in("b", tensor.Half, -1), in("c", tensor.String, -1)))
	json := `{"inputs":[{"name":"c","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}},{"name":"a","shape":[2],"datatype":"INT32","data":[1,2]},` +
		`{"name":"b","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}}],"outputs":[{"name":"c"},{"name":"b","parameters":{"binary_data":true}},{"name":"a","parameters":{"binary_data":true}}]}`
	_, got := h.infer(t, json, "\x02\x00\x00\x00hi\x00\x3c")
	want := answered(`{"name":"c","datatype":"BYTES","shape":[1],"data":["hi"]},{"name":"b","datatype":"FP16","shape":[1],"parameters":{"binary_data_size":2}},`+
		`{"name":"a","datatype":"INT32","shape":[2],"parameters":{"binary_data_size":8}}`) + "\x00\x3c\x01\x00\x00\x00\x02\x00\x00\x00"
	if got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	// An output can say that it is not to be raw where all others are.
	json = `{"parameters":{"binary_data_output":true},"inputs":[{"name":"c","shape":[0],"datatype":"BYTES","data":[]},{"name":"a","shape":[1],"datatype":"INT32","data":[1]},` +
		`{"name":"b","shape":[0],"datatype":"FP16","parameters":{"binary_data_size":0}}],"outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}`
	_, got = h.infer(t, json, "")
	want = answered(`{"name":"a","datatype":"INT32","shape":[1],"data":[1]},{"name":"b","datatype":"FP16","shape":[0],"parameters":{"binary_data_size":0}}`)
	if got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestInferWithoutJSON(t *testing.T) {
	for _, c := range []struct {
		info        inference.TensorInfo
		body        string
		shape, want string // want: the raw output, or the error
	}{
		{in("x", tensor.Float, -1, 2), "\x00\x00\x80\x3f\x00\x00\x00\x40", "[1,2]", "\x00\x00\x80\x3f\x00\x00\x00\x40"},
		{in("x", tensor.Uint8, -1, -1, 3), "abcdef", "[1,2,3]", "abcdef"},
		{in("x", tensor.BFloat16, -1), "abcd", "[2]", "abcd"},
		{in("x", tensor.String, -1), "\xff\x00 all of it", "[1]", "\x0c\x00\x00\x00\xff\x00 all of it"},
		{in("x", tensor.String, -1, 1), "", "[1,1]", "\x00\x00\x00\x00"},
		{in("x", tensor.Float, -1, 2), "\x00\x00\x80\x3f", "", "takes 8 bytes, got 4"},
		{in("x", tensor.Uint8, -1, -1, 3), "abcd", "", "takes a multiple of 3 bytes, got 4"},
		{in("x", tensor.Uint8, -1, -1, -1), "abcd", "", "more than one open dimension"},
		{inference.TensorInfo{Alias: "x", DType: tensor.Float, UnknownRank: true}, "abcd", "", "any shape"},
	} {
		h := serve(t, Options{}, oip.Options{}, version(c.info))
		resp, got := h.do(t, "POST", "/v2/models/m/infer", c.body, LengthHeader, "0")
		if c.shape == "" {
			if resp.StatusCode != 400 || !strings.Contains(got, c.want) {
				t.Errorf("%v: %d %s, want %s", c.info.Shape, resp.StatusCode, got, c.want)
			}
			continue
		}
		want := answered(fmt.Sprintf(`{"name":"x","datatype":"%s","shape":%s,"parameters":{"binary_data_size":%d}}`, oip.Datatype(c.info.DType), c.shape, len(c.want))) + c.want
		if resp.StatusCode != 200 || got != want {
			t.Errorf("%d %q\nwant %q", resp.StatusCode, got, want)
		}
	}
	h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, -1), in("y", tensor.Float, -1)))
	if resp, got := h.do(t, "POST", "/v2/models/m/infer", "abcd", LengthHeader, "0"); resp.StatusCode != 400 || !strings.Contains(got, "has 2; send JSON") {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// TestRawSharesTheBody is the copy that is not made.
func TestRawSharesTheBody(t *testing.T) {
	json := `{"inputs":[{"name":"x","shape":[1024],"datatype":"UINT8","parameters":{"binary_data_size":1024}}]}`
	s := take()
	defer s.give()
	s.body = pad(json + strings.Repeat("abcd", 256))
	if err := s.read(len(json), false, 1<<20); err != nil {
		t.Fatal(err)
	}
	req, err := s.request(version(in("x", tensor.Uint8, -1)), len(json))
	if err != nil {
		t.Fatal(err)
	}
	data := req.Inputs[0].Data
	if len(data) != 1024 || unsafe.Pointer(&data[0]) != unsafe.Pointer(&s.body[len(json)]) || string(data[:8]) != "abcdabcd" {
		t.Errorf("%d bytes, %q, at another place than in the body", len(data), data[:8])
	}
}

func TestBadRequests(t *testing.T) {
	const x = `{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}`
	with := func(input string) string { return `{"inputs":[` + input + `]}` }
	for _, c := range []struct {
		name, json, raw, want string
	}{
		{"no document", " ", "", "the request is empty"},
		{"no JSON", "{", "", "JSON Parse error: Missing a name for object member. at offset: 1"},
		{"not an object", "[]", "", "the request: not a JSON object"},
		{"cut short", `{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2`, "", "JSON Parse error: Missing a comma or ']'"},
		{"syntax first", `{"inputs":7,"outputs":[}`, "", "JSON Parse error"},
		{"more after it", with(x) + " x", "", "more after the end of the JSON"},
		{"inputs no list", `{"inputs":{}}`, "", "inputs: not a list"},
		{"an input no object", `{"inputs":[7]}`, "", "an input: not a JSON object"},
		{"no inputs", `{}`, "", `input "x" is missing; signature "serving_default" of model m version 7 takes x FP32 [2], y INT8 [-1]`},
		{"no name", with(`{"shape":[2],"datatype":"FP32","data":[1,2]}`), "", "an input has no name"},
		{"no shape", with(`{"name":"x","datatype":"FP32","data":[1,2]}`), "", `input "x" has no shape`},
		{"no datatype", with(`{"name":"x","shape":[2],"data":[1,2]}`), "", `input "x" has no datatype`},
		{"no data", with(`{"name":"x","shape":[2],"datatype":"FP32"}`), "", `input "x" has no data`},
		{"twice", with(`{"name":"x","name":"x","shape":[2],"datatype":"FP32"}`), "", `has "name" twice`},
		{"unknown datatype", with(`{"name":"x","shape":[2],"datatype":"FLOAT","data":[1,2]}`), "", `the datatype "FLOAT", which is none; send BOOL, UINT8`},
		{"unknown datatype, data first", with(`{"name":"x","shape":[2],"data":[1,2],"datatype":"FLOAT"}`), "", `the datatype "FLOAT", which is none; send BOOL, UINT8`},
		{"FP16 in JSON", with(`{"name":"x","shape":[2],"datatype":"FP16","data":[1,2]}`), "", "send them as binary data"},
		{"BF16 in JSON", with(`{"name":"x","shape":[2],"datatype":"BF16","data":[1,2]}`), "", "send them as binary data"},
		{"negative dimension", with(`{"name":"x","shape":[-1],"datatype":"FP32","data":[1,2]}`), "", "no whole number from 0 on"},
		{"dimension no number", with(`{"name":"x","shape":["2"],"datatype":"FP32","data":[1,2]}`), "", "no whole number from 0 on"},
		{"shape overflows", with(`{"name":"x","shape":[9223372036854775807,9223372036854775807],"datatype":"FP32","data":[1,2]}`), "", "overflows"},
		{"too few", with(`{"name":"x","shape":[3],"datatype":"FP32","data":[1,2]}`), "", `input "x" of datatype FP32 and shape [3] takes 3 elements, got 2`},
		{"nested otherwise", with(`{"name":"x","shape":[2,3],"datatype":"FP32","data":[[1,2],[3,4],[5,6]]}`), "", "lies in lists of shape [3,2]"},
		{"uneven", with(`{"name":"x","shape":[3],"datatype":"FP32","data":[[1,2],[3]]}`), "", "lists of different lengths or depths"},
		{"a word", with(`{"name":"x","shape":[2],"datatype":"FP32","data":[1,"two"]}`), "", `element 1 is \"two\", which is none`},
		{"null", with(`{"name":"x","shape":[2],"datatype":"FP32","data":null}`), "", `element 0 is null`},
		{"a fraction", with(`{"name":"x","shape":[2],"datatype":"INT32","data":[1,1.5]}`), "", `of datatype INT32: element 1 is 1.5`},
		{"over the range", with(`{"name":"x","shape":[2],"datatype":"INT8","data":[1,128]}`), "", "element 1 is 128, and the type goes from -128 to 127"},
		{"under the range", with(`{"name":"x","shape":[1],"datatype":"UINT8","data":[-1]}`), "", "element 0 is -1, and the type goes from 0 to 255"},
		{"deep", with(`{"name":"x","shape":[1],"datatype":"FP32","data":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`), "", "more than 254 lists"},
		{"unknown input", with(x + `,{"name":"z","shape":[1],"datatype":"INT8","data":[1]}`), "", `input "z" is none of signature "serving_default" of model m version 7, which takes x FP32 [2], y INT8 [-1]`},
		{"input twice", with(x + "," + x), "", `input "x" was sent twice`},
		{"missing", with(x), "", `input "y" is missing`},
		{"other type", with(`{"name":"x","shape":[2],"datatype":"FP64","data":[1,2]},{"name":"y","shape":[1],"datatype":"INT8","data":[1]}`), "", "Expects arg[0] to be float but double is provided"},
		{"unknown output", `{"inputs":[` + x + `],"outputs":[{"name":"z"}]}`, "", `output "z" is none of signature`},
		{"output twice", `{"inputs":[` + x + `],"outputs":[{"name":"x"},{"name":"x"}]}`, "", `output "x" is asked for twice`},
		{"output without a name", `{"inputs":[` + x + `],"outputs":[{}]}`, "", "an output has no name"},
		{"binary_data no bool", `{"inputs":[` + x + `],"outputs":[{"name":"x","parameters":{"binary_data":1}}]}`, "", "binary_data is true or false"},
		{"both", with(`{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}}`), "abcd", "both data and the parameter binary_data_size"},
		{"size no number", with(`{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":"4"}}`), "abcd", "whole number of bytes"},
		{"size negative", with(`{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":-4}}`), "abcd", "whole number of bytes"},
		{"size over the body", with(`{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}`), "abc", "is said to have 4 bytes of binary data (binary_data_size), 3 are left"},
		{"size over the body by far", with(`{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":9223372036854775807}}`), "abc", "is said to have 9223372036854775807 bytes"},
		{"left over", with(`{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}`), "abcdef", "2 bytes of binary data are left over: 6 came"},
		{"size and shape", with(`{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":4}}`), "abcd", "of datatype FP32 and shape [2] takes 8 bytes, got 4"},
		{"BYTES cut", with(`{"name":"x","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}`), "\x03\x00\x00\x00ab", "element 0 is said to have 3 bytes, 2 are left"},
		{"BYTES far over", with(`{"name":"x","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}`), "\xff\xff\xff\xffab", "element 0 is said to have 4294967295 bytes, 2 are left"},
		{"BYTES too many", with(`{"name":"x","shape":[1000000000000],"datatype":"BYTES","parameters":{"binary_data_size":6}}`), "\x02\x00\x00\x00ab", "takes 1000000000000 elements of at least 4 bytes, got 6"},
		{"BYTES ends in a length", with(`{"name":"x","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":8}}`), "\x02\x00\x00\x00abcd"[:8], "ends in the length of element 1 of 2"},
		{"BYTES left over", with(`{"name":"x","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":8}}`), "\x02\x00\x00\x00abcd", "has 2 bytes after its 1 elements"},
		{"BOOL", with(`{"name":"x","shape":[2],"datatype":"BOOL","parameters":{"binary_data_size":2}}`), "\x01\x02", "has the byte 2 at element 1"},
		{"timeout", `{"parameters":{"timeout":-1},"inputs":[` + x + `]}`, "", "timeout is a whole number of microseconds"},
		{"priority", `{"parameters":{"priority":"now"},"inputs":[` + x + `]}`, "", "priority is 1 (interactive)"},
		{"parameters no object", `{"parameters":[],"inputs":[` + x + `]}`, "", "parameters of the request: not a JSON object"},
		{"signature", `{"parameters":{"signature_name":"s"},"inputs":[` + x + `]}`, "", `Serving signature key \"s\" not found`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, 2), in("y", tensor.Int8, -1)))
			resp, got := h.do(t, "POST", "/v2/models/m/infer", c.json)
			if c.raw != "" {
				resp, got = h.infer(t, c.json, c.raw)
			}
			want := strings.ReplaceAll(strings.ReplaceAll(c.want, `\"`, `"`), `"`, `\"`)
			if resp.StatusCode != 400 || !strings.HasPrefix(got, `{"error":"`) || !strings.Contains(got, want) {
				t.Errorf("%d %s\nwant %s", resp.StatusCode, got, want)
			}
			if resp.Header.Get("X-Inferd-Reason") == "" {
				t.Error("no reason in the header")
			}
			if h.echo.last != nil {
				t.Error("it was run")
			}
		})
	}
}

func TestBadHeaders(t *testing.T) {
	h := serve(t, Options{Door: rest.Options{MaxRequestBytes: 1000}}, oip.Options{}, version(in("x", tensor.Float, -1)))
	const good = `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`
	for _, c := range []struct {
		name, value, body string
		status            int
		want              string
	}{
		{LengthHeader, "-1", good, 400, "is no number of bytes"},
		{LengthHeader, "x", good, 400, "is no number of bytes"},
		{LengthHeader, "99999999999999999999", good, 400, "is no number of bytes"},
		{LengthHeader, "500", good, 400, "500 bytes of JSON, and the body has 66"},
		{LengthHeader, "10", good, 400, "JSON Parse error"},
		{"Request-Timeout", "soon", good, 400, "is not a number of seconds"},
		{"X-Inferd-Priority", "now", good, 400, "is no priority"},
		{"Content-Encoding", "br", good, 400, "is not known here"},
		{"Content-Encoding", "gzip", good, 400, "gzip"},
		{"Content-Type", "text/plain", strings.Repeat(" ", 2000), 413, "the limit is 1000"},
		{"Content-Type", "text/plain", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}`, 400, "has no header " + LengthHeader},
	} {
		resp, got := h.do(t, "POST", "/v2/models/m/infer", c.body, c.name, c.value)
		if resp.StatusCode != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s: %d %s, want %d %s", c.name, c.value, resp.StatusCode, got, c.status, c.want)
		}
	}
}

func TestSequencesAndSharedMemoryAreRefused(t *testing.T) {
	h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, -1)))
	for parameter, status := range map[string]int{
		`"sequence_id":7`: 501, `"sequence_id":"a"`: 501, `"sequence_start":true`: 501, `"sequence_end":true`: 501, `"sequence_id":0`: 200, `"sequence_id":""`: 200,
		`"sequence_id":0,"sequence_start":false,"sequence_end":false`: 200, `"mine":{"a":1}`: 200, `"timeout":0,"priority":0`: 200, `"timeout":60000000,"priority":18446744073709551615`: 200,
	} {
		resp, got := h.do(t, "POST", "/v2/models/m/infer", `{"parameters":{`+parameter+`},"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`)
		if resp.StatusCode != status || status == 501 && !strings.Contains(got, "there are no sequences") {
			t.Errorf("%s: %d %s, want %d", parameter, resp.StatusCode, got, status)
		}
	}
	for _, body := range []string{
		`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":4}}]}`,
		`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"x","parameters":{"classification":3}}]}`,
	} {
		if resp, got := h.do(t, "POST", "/v2/models/m/infer", body); resp.StatusCode != 501 {
			t.Errorf("%s: %d %s", body, resp.StatusCode, got)
		}
	}
}

func TestOutputsThatAreNoText(t *testing.T) {
	h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.String, -1)))
	resp, got := h.infer(t, `{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`, "\x01\x00\x00\x00\xff")
	if resp.StatusCode != 400 || !strings.Contains(got, "element 0 is no text") {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	h = serve(t, Options{}, oip.Options{}, version(in("x", tensor.Half, -1)))
	resp, got = h.infer(t, `{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}}]}`, "\x00\x3c")
	if resp.StatusCode != 400 || !strings.Contains(got, "ask for binary data") || h.echo.last != nil {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

func TestStrings(t *testing.T) {
	info := in("x", tensor.String, -1)
	v := version(info)
	s := take()
	defer s.give()
	body := `{"inputs":[{"name":"x","shape":[3],"datatype":"BYTES","data":["","",""]}]}`
	s.body = pad(body)
	if err := s.read(-1, false, 2*int(oip.StringHeader)); err == nil || err.Reason != inference.ReasonTooLarge {
		t.Errorf("three strings in the room of two: %v", err)
	}
	s.body = pad(strings.Replace(body, `"data":["","",""]`, `"parameters":{"binary_data_size":12}`, 1) + strings.Repeat("\x00", 12))
	if err := s.read(len(s.body)-rest.Sentinel-12, false, 2*int(oip.StringHeader)); err == nil || err.Reason != inference.ReasonTooLarge {
		t.Errorf("three raw strings in the room of two: %v", err)
	}
	if err := s.read(len(s.body)-rest.Sentinel-12, false, math.MaxInt32); err != nil {
		t.Error(err)
	} else if req, err := s.request(v, 1); err != nil || len(req.Inputs[0].Strings) != 3 {
		t.Errorf("%v %v", req, err)
	}
}
