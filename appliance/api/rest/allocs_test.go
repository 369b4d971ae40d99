// allocs_test.go: what a small prediction allocates in the handler is bounded, whatever the machine does beside.
package rest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// predictAllocs is what rest and api allocate for one prediction of the small model over REST, the servable's answer included.
const predictAllocs = 7

func TestPredictAllocations(t *testing.T) {
	v, s := small()
	c := inference.NewCatalog()
	c.Publish(v, s)
	h := New(api.New(c, api.Options{}), Options{})
	for _, n := range []int{32, 8192} {
		body := []byte(`{"instances":[` + numbers(n, 4) + `]}`)
		v.Signatures[inference.DefaultSignature].Inputs[0].Shape[1] = int64(n)
		w := &discard{header: http.Header{}}
		reader := bytes.NewReader(body)
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/models/m:predict", io.NopCloser(reader))
		r.ContentLength = int64(len(body))
		got := testing.AllocsPerRun(500, func() {
			reader.Reset(body)
			clear(w.header)
			h.ServeHTTP(w, r)
			if w.status != http.StatusOK {
				t.Fatal(w.status)
			}
		})
		t.Logf("%d numbers: %v allocations", n, got)
		if got > predictAllocs && !raceEnabled {
			t.Errorf("%v allocations for a prediction of %d numbers, at most %d are allowed", got, n, predictAllocs)
		}
	}
}
