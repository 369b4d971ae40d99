// harness_test.go: versions and a servable made up for the tests.
package oiprest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// in is an input or output of that shape.
func in(alias string, d tensor.DType, shape ...int64) inference.TensorInfo {
	return inference.TensorInfo{Alias: alias, Tensor: alias + ":0", DType: d, Shape: shape}
}

// version is model m, version 7, whose default signature gives its inputs back.
func version(infos ...inference.TensorInfo) *inference.Version {
	sig := &inference.Signature{Key: inference.DefaultSignature, Method: "tensorflow/serving/predict", Inputs: infos, Outputs: infos}
	return &inference.Version{Model: "m", Number: 7, Signatures: map[string]*inference.Signature{sig.Key: sig}}
}

// echo gives the inputs back, and keeps the last request.
type echo struct {
	mu      sync.Mutex
	last    *inference.Request // guarded by mu
	tickets int                // guarded by mu: that are out
}

func (e *echo) Predict(_ context.Context, req *inference.Request) (*inference.Response, error) {
	req.Ticket.Leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = req
	outputs := make([]*tensor.Tensor, len(req.Outputs))
	for i, k := range req.Outputs {
		outputs[i] = req.Inputs[k]
	}
	return inference.NewResponse(outputs, nil), nil
}

func (e *echo) Close() error { return nil }

// harness is a server over a real catalog.
type harness struct {
	*httptest.Server
	catalog *inference.Catalog
	echo    *echo
	stats   *oip.Statistics

	mu       sync.Mutex
	observed []api.Observation // guarded by mu
}

func serve(tb testing.TB, opts Options, shared oip.Options, v *inference.Version) *harness {
	tb.Helper()
	h := &harness{catalog: inference.NewCatalog(), echo: new(echo), stats: oip.NewStatistics()}
	h.catalog.Publish(v, h.echo)
	svc := api.New(h.catalog, api.Options{Observe: func(o api.Observation) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.observed = append(h.observed, o)
		h.stats.Observe(o)
	}})
	shared.Statistics = h.stats
	h.Server = httptest.NewServer(New(svc, oip.New(svc, shared), opts))
	tb.Cleanup(h.Close)
	return h
}

// do sends a request with headers given as name, value, ... and returns the answer with its body read.
func (h *harness) do(tb testing.TB, method, path, body string, headers ...string) (*http.Response, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, h.URL+path, bytes.NewReader([]byte(body)))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := h.Client().Do(req)
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

// infer sends JSON, and raw data behind it.
func (h *harness) infer(tb testing.TB, json, raw string) (*http.Response, string) {
	tb.Helper()
	return h.do(tb, "POST", "/v2/models/m/infer", json+raw, LengthHeader, strconv.Itoa(len(json)))
}

// pad is a text as the readers take it.
func pad(text string) []byte { return slices.Concat([]byte(text), make([]byte, rest.Sentinel)) }
