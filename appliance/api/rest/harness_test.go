// harness_test.go: signatures, versions and a servable made up for the tests.
package rest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

// in is an input or output of any shape.
func in(alias string, d tensor.DType) inference.TensorInfo {
	return inference.TensorInfo{Alias: alias, Tensor: alias + ":0", DType: d, UnknownRank: true}
}

// picture is an input that takes PNG pictures of 2 by 2 pixels too.
func picture(alias string, d tensor.DType) inference.TensorInfo {
	info := inference.TensorInfo{Alias: alias, Tensor: alias + ":0", DType: d, Shape: tensor.Shape{-1, 2, 2, 3}}
	m, err := media.Spec{Format: media.PNG}.Bind(d, info.Shape, false)
	if err != nil {
		panic(err)
	}
	info.Media = m
	return info
}

// version is model m, version 7, with one signature for each list of inputs; each gives its inputs back.
func version(signatures map[string][]inference.TensorInfo) *inference.Version {
	v := &inference.Version{Model: "m", Number: 7, Signatures: map[string]*inference.Signature{}, Defs: map[string]*pb.SignatureDef{}}
	for key, infos := range signatures {
		v.Signatures[key] = &inference.Signature{Key: key, Method: "tensorflow/serving/predict", Inputs: infos, Outputs: infos}
	}
	return v
}

// one is a version whose default signature has these inputs.
func one(infos ...inference.TensorInfo) *inference.Version {
	return version(map[string][]inference.TensorInfo{inference.DefaultSignature: infos})
}

// pad is a body as the readers take it.
func pad(body string) []byte { return append([]byte(body), make([]byte, sentinel)...) }

// read is what the handler does with a body.
func read(body string, v *inference.Version, strict bool) (*decoder, *inference.Error) {
	d := &decoder{strict: strict, maxBytes: 1 << 20}
	if !d.decode(pad(body), v) {
		e := explainer{b: pad(body), strict: strict, maxBytes: 1 << 20}
		return nil, e.explain(v)
	}
	return d, nil
}

// show prints a tensor so that two of them are equal when their text is.
func show(t *tensor.Tensor) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", t.DType.Name(), t.Shape)
	if t.DType == tensor.String {
		for _, s := range t.Strings {
			fmt.Fprintf(&b, " %q", s)
		}
		return b.String()
	}
	le := binary.LittleEndian
	for at := 0; at < len(t.Data); at += t.DType.Size() {
		switch d := t.Data[at:]; t.DType {
		case tensor.Float:
			fmt.Fprintf(&b, " %v", math.Float32frombits(le.Uint32(d)))
		case tensor.Double:
			fmt.Fprintf(&b, " %v", math.Float64frombits(le.Uint64(d)))
		case tensor.Int32:
			fmt.Fprintf(&b, " %d", int32(le.Uint32(d)))
		case tensor.Int16:
			fmt.Fprintf(&b, " %d", int16(le.Uint16(d)))
		case tensor.Int8:
			fmt.Fprintf(&b, " %d", int8(d[0]))
		case tensor.Int64:
			fmt.Fprintf(&b, " %d", int64(le.Uint64(d)))
		case tensor.Uint32:
			fmt.Fprintf(&b, " %d", le.Uint32(d))
		case tensor.Uint64:
			fmt.Fprintf(&b, " %d", le.Uint64(d))
		default:
			fmt.Fprintf(&b, " %d", d[0])
		}
	}
	return b.String()
}

func float32s(shape tensor.Shape, values ...float32) *tensor.Tensor {
	data := []byte{}
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return must(tensor.New(tensor.Float, shape, data))
}

func float64s(shape tensor.Shape, values ...float64) *tensor.Tensor {
	data := []byte{}
	for _, v := range values {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
	}
	return must(tensor.New(tensor.Double, shape, data))
}

func texts(shape tensor.Shape, values ...string) *tensor.Tensor {
	elements := [][]byte{}
	for _, v := range values {
		elements = append(elements, []byte(v))
	}
	return must(tensor.NewStrings(shape, elements))
}

func must(t *tensor.Tensor, err error) *tensor.Tensor {
	if err != nil {
		panic(err)
	}
	return t
}

// servable answers by a function; without one it gives the inputs back.
type servable struct {
	predict func(context.Context, *inference.Request) (*inference.Response, error)
}

func (s *servable) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	if s.predict != nil {
		return s.predict(ctx, req)
	}
	outputs := make([]*tensor.Tensor, len(req.Outputs))
	for i, k := range req.Outputs {
		outputs[i] = req.Inputs[k]
	}
	return inference.NewResponse(outputs, nil), nil
}

func (s *servable) Close() error { return nil }

// appliance is a server over a real catalog that keeps what was observed.
type appliance struct {
	*httptest.Server
	catalog *inference.Catalog

	mu       sync.Mutex
	observed []api.Observation // guarded by mu
}

func serve(tb testing.TB, opts Options, v *inference.Version, s *servable) *appliance {
	tb.Helper()
	a := &appliance{catalog: inference.NewCatalog()}
	if v != nil {
		a.catalog.Publish(v, s)
	}
	svc := api.New(a.catalog, api.Options{Observe: func(o api.Observation) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.observed = append(a.observed, o)
	}})
	a.Server = httptest.NewServer(New(svc, opts))
	tb.Cleanup(a.Close)
	return a
}

// last waits until n requests have been observed and returns the latest: a client has its answer before the handler has ended.
func (a *appliance) last(tb testing.TB, n int) api.Observation {
	tb.Helper()
	a.Close() // waits for the handlers
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.observed) != n {
		tb.Fatalf("%d observations, want %d: %+v", len(a.observed), n, a.observed)
	}
	return a.observed[n-1]
}

// do sends a request with headers given as name, value, ... and returns the answer with its body read.
func (a *appliance) do(tb testing.TB, method, path, body string, headers ...string) (*http.Response, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, a.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := a.Client().Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp, string(got)
}

// answerWith is a servable that does nothing but answer.
func answerWith(outputs []*tensor.Tensor) func(context.Context, *inference.Request) (*inference.Response, error) {
	return func(context.Context, *inference.Request) (*inference.Response, error) {
		return inference.NewResponse(outputs, nil), nil
	}
}
