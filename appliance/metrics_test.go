// metrics_test.go: requests counted, and forgotten with their version.
package appliance

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

func TestRequestsAreCountedAndForgotten(t *testing.T) {
	m := newMetrics("test")
	good := api.Observation{Protocol: "rest", Method: "predict", Model: "m", Version: 7, Signature: "s", Took: time.Millisecond}
	bad := good
	bad.Code, bad.Reason = inference.InvalidArgument, inference.ReasonInput
	for range 3 {
		m.request(good)
	}
	m.request(bad)
	count := func(code inference.Code) float64 {
		return testutil.ToFloat64(m.requests.WithLabelValues("rest", "m", "7", "s", code.String()))
	}
	if count(inference.OK) != 3 || count(inference.InvalidArgument) != 1 {
		t.Errorf("%v good and %v bad requests were counted, want 3 and 1", count(inference.OK), count(inference.InvalidArgument))
	}
	if n := testutil.ToFloat64(m.theirRequests.WithLabelValues("m", "OK")); n != 3 {
		t.Errorf("TensorFlow Serving's counter is at %v, want 3", n)
	}
	if n := testutil.CollectAndCount(m.latency); n != 1 {
		t.Fatalf("%d series of latency, want 1", n)
	}
	for method, their := range map[string]string{"classify": "Classify", "regress": "Regress", "multi_inference": "MultiInference"} {
		o := good
		o.Protocol, o.Method, o.Model = "grpc", method, "other"
		m.request(o)
		if !m.theirLatency.DeleteLabelValues("other", their, "GRPC") {
			t.Errorf("%s is not in TensorFlow Serving's latency", method)
		}
	}
	if n := testutil.ToFloat64(m.theirRequests.WithLabelValues("other", "OK")); n != 3 {
		t.Errorf("TensorFlow Serving's counter of the other methods is at %v, want 3", n)
	}
	m.drop("other", 7)
	m.drop("m", 7)
	if n := testutil.CollectAndCount(m.latency); n != 0 {
		t.Errorf("%d series of latency are left of a version that is gone", n)
	}
	m.request(good) // the version has come back
	if n := testutil.CollectAndCount(m.latency); n != 1 {
		t.Errorf("%d series of latency after the version came back, want 1", n)
	}
}
