// bench_test.go: how fast the readers and the writer are, and what a small request allocates.
package rest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// numbers is a list of n numbers in [0, 1) with so many digits, -1 for as many as Python prints.
func numbers(n, digits int) string {
	rnd := newRand()
	var b strings.Builder
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatFloat(rnd.Float64(), 'f', digits, 64))
	}
	b.WriteByte(']')
	return b.String()
}

func BenchmarkDecode(b *testing.B) {
	nested := func(rows, columns, digits int) string {
		row := numbers(columns, digits)
		return `{"instances":[` + strings.Repeat(row+",", rows-1) + row + `]}`
	}
	for _, c := range []struct {
		name string
		d    tensor.DType
		body string
	}{
		{"float/small", tensor.Float, `{"instances":[` + numbers(32, 4) + `]}`},
		{"float/digits=4", tensor.Float, `{"inputs":` + numbers(1<<18, 4) + `}`},
		{"float/digits=9", tensor.Float, `{"inputs":` + numbers(1<<18, 9) + `}`},
		{"float/digits=17", tensor.Float, `{"inputs":` + numbers(1<<18, -1) + `}`},
		{"float/image", tensor.Float, nested(224*224, 3, 4)},
		{"float/python", tensor.Float, `{"inputs":` + strings.ReplaceAll(numbers(1<<18, -1), ",", ", ") + `}`},
		{"double/digits=17", tensor.Double, `{"inputs":` + numbers(1<<18, -1) + `}`},
		{"int64", tensor.Int64, `{"inputs":[` + strings.Repeat("12345678,", 1<<18) + `1]}`},
		{"uint8", tensor.Uint8, `{"inputs":[` + strings.Repeat("200,", 1<<18) + `1]}`},
		{"b64", tensor.String, `{"instances":[{"b64":"` + strings.Repeat("AAAA", 1<<18) + `"}]}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			v, body := one(in("x", c.d)), pad(c.body)
			d := &decoder{maxBytes: 1 << 30}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if !d.decode(body, v) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// BenchmarkExplain is the slow reader on its worst: a fault at the very end of lists within lists.
func BenchmarkExplain(b *testing.B) {
	v := one(in("x", tensor.Float))
	for name, text := range map[string]string{
		"flat": `{"inputs":` + strings.TrimSuffix(numbers(1<<18, 9), "]") + `,"x"]}`,
		"deep": `{"inputs":` + strings.Repeat("[", 250) + strings.TrimSuffix(numbers(1<<18, 9), "]") + `,"x"]` + strings.Repeat("]", 250) + `}`,
	} {
		b.Run(name, func(b *testing.B) {
			body := pad(text)
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				e := explainer{b: body, maxBytes: 1 << 30}
				if err := e.explain(v); err.Code != inference.InvalidArgument {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	rnd := newRand()
	floats, wide := make([]float32, 1<<16), make([]float64, 1<<16)
	for i := range floats {
		floats[i], wide[i] = rnd.Float32(), rnd.Float64()
	}
	infos, wanted := []inference.TensorInfo{in("y", tensor.Float)}, []int{0}
	for _, c := range []struct {
		name string
		row  bool
		t    *tensor.Tensor
	}{
		{"small", true, float32s(tensor.Shape{1, 10}, floats[:10]...)},
		{"float", true, float32s(tensor.Shape{64, 1024}, floats...)},
		{"float/column", false, float32s(tensor.Shape{64, 1024}, floats...)},
		{"double", true, float64s(tensor.Shape{64, 1024}, wide...)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var e encoder
			b.ReportAllocs()
			for b.Loop() {
				e.out = e.out[:0]
				if err := e.response(c.row, infos, wanted, []*tensor.Tensor{c.t}); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(e.out)))
		})
	}
}

// small is a servable of the two-layer model's sizes that does nothing.
func small() (*inference.Version, *servable) {
	v := one(inference.TensorInfo{Alias: "x", DType: tensor.Float, Shape: tensor.Shape{-1, 32}})
	v.Signatures[inference.DefaultSignature].Outputs = []inference.TensorInfo{{Alias: "y", DType: tensor.Float, Shape: tensor.Shape{-1, 10}}}
	rnd := newRand()
	values := make([]float32, 10)
	for i := range values {
		values[i] = rnd.Float32()
	}
	y := []*tensor.Tensor{float32s(tensor.Shape{1, 10}, values...)}
	return v, &servable{predict: answerWith(y)}
}

// BenchmarkHandler is what the handler alone costs, without a network.
func BenchmarkHandler(b *testing.B) {
	v, s := small()
	c := inference.NewCatalog()
	c.Publish(v, s)
	h := New(api.New(c, api.Options{}), Options{})
	body := []byte(`{"instances":[` + numbers(32, 4) + `]}`)
	w := &discard{header: http.Header{}}
	reader := bytes.NewReader(body)
	r := httptest.NewRequestWithContext(b.Context(), "POST", "/v1/models/m:predict", io.NopCloser(reader))
	r.ContentLength = int64(len(body))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkServer has 64 connections, to the handler and to one that reads the body and writes a fixed answer of the same size.
func BenchmarkServer(b *testing.B) {
	v, s := small()
	c := inference.NewCatalog()
	c.Publish(v, s)
	body := `{"instances":[` + numbers(32, 4) + `]}`
	h := New(api.New(c, api.Options{}), Options{})
	fixed := httptest.NewRecorder()
	h.ServeHTTP(fixed, httptest.NewRequestWithContext(b.Context(), "POST", "/v1/models/m:predict", strings.NewReader(body)))
	nothing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Content-Type"] = jsonType
		_, _ = w.Write(fixed.Body.Bytes())
	})
	for name, h := range map[string]http.Handler{"nothing": nothing, "predict": h} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(h)
			defer server.Close()
			server.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 64
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					resp, err := server.Client().Post(server.URL+"/v1/models/m:predict", "application/json", strings.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		})
	}
}
