// metrics.go: what Prometheus sees. Counters and histograms are fed by observations; states are read when scraped.
package appliance

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
)

// Times from a small model's run to a deadline; sizes of batches in rows.
var (
	secondsBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	rowsBuckets    = prometheus.ExponentialBuckets(1, 2, 11)
)

// metrics are the instruments of one appliance, in a registry of its own.
type metrics struct {
	registry *prometheus.Registry
	queue    *queueMetrics
	stats    *oip.Statistics // of the Open Inference Protocol

	requests *prometheus.CounterVec   // protocol model version signature code
	latency  *prometheus.HistogramVec // protocol model version signature; every answer
	refused  *prometheus.CounterVec   // model reason
	turned   *prometheus.CounterVec   // protocol reason; what admission refused
	wait     *prometheus.HistogramVec // model version signature
	runTime  *prometheus.HistogramVec
	rows     *prometheus.HistogramVec
	padded   *prometheus.CounterVec
	canaries *prometheus.CounterVec // model result

	good sync.Map // goodKey to *goodSeries: what a successful prediction adds to, found once per key and not per request

	// TensorFlow Serving's own names, for dashboards that exist.
	theirRequests *prometheus.CounterVec
	theirLatency  *prometheus.HistogramVec
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), stats: oip.NewStatistics()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	m.queue = newQueueMetrics(m.registry)
	m.requests = counter("inferd_requests_total", "Requests answered, by gRPC code.", "protocol", "model", "version", "signature", "code")
	m.latency = histogram("inferd_request_duration_seconds", "From the request's arrival to its answer.", secondsBuckets, "protocol", "model", "version", "signature")
	m.refused = counter("inferd_errors_total", "Requests answered with an error, by reason.", "model", "reason")
	m.turned = counter("inferd_refused_total", "Predictions that admission refused, by protocol and reason.", "protocol", "reason")
	m.wait = histogram("inferd_batch_wait_seconds", "How long a request waited for its run to begin.", secondsBuckets, "model", "version", "signature")
	m.runTime = histogram("inferd_run_duration_seconds", "One run of the graph, as the core sees it.", secondsBuckets, "model", "version", "signature")
	m.rows = histogram("inferd_batch_rows", "Rows in one run of the graph, padding not counted.", rowsBuckets, "model", "version", "signature")
	m.padded = counter("inferd_batch_padded_rows_total", "Rows added to reach an allowed batch size.", "model", "version", "signature")
	m.canaries = counter("inferd_canary_runs_total", "Made-up runs of idle versions, by result: ok, error (the model's own), hung (its worker is replaced).", "model", "result")
	m.theirRequests = counter(":tensorflow:serving:request_count", "As TensorFlow Serving counts.", "model_name", "status")
	m.theirLatency = histogram(":tensorflow:serving:request_latency", "Microseconds, successful requests, as TensorFlow Serving measures.",
		prometheus.ExponentialBuckets(10, 1.8, 33), "model_name", "API", "entrypoint")
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "inferd_build_info", Help: "Constant 1, with the version."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// request records one finished request.
func (m *metrics) request(o api.Observation) {
	m.stats.Observe(o)
	version := ""
	if o.Version > 0 {
		version = strconv.FormatInt(o.Version, 10)
	}
	if o.Version == 0 {
		// Nothing was acquired, so the signature's name came from outside: it must not become a label. api.Service sees to the model's.
		o.Signature = ""
	}
	their, prediction := theirAPI[o.Method]
	if prediction && o.Code == inference.OK && o.Reason == "" {
		m.goodSeries(goodKey{o.Protocol, their, o.Model, version, o.Signature}).add(o.Took)
		return
	}
	code := o.Code.String()
	if !prediction {
		// Metadata, status and what is malformed are counted, but would blur the times of predictions.
		m.requests.WithLabelValues(o.Protocol, o.Model, version, o.Signature, code).Inc()
		return
	}
	m.requests.WithLabelValues(o.Protocol, o.Model, version, o.Signature, code).Inc()
	m.latency.WithLabelValues(o.Protocol, o.Model, version, o.Signature).Observe(o.Took.Seconds())
	if o.Reason != "" {
		m.refused.WithLabelValues(o.Model, o.Reason).Inc()
	}
	if o.Code == inference.ResourceExhausted || o.Code == inference.Unavailable {
		switch o.Reason {
		case inference.ReasonRate, inference.ReasonQueueFull, inference.ReasonMemory, inference.ReasonDeadline, inference.ReasonLoading, inference.ReasonDraining:
			m.turned.WithLabelValues(o.Protocol, o.Reason).Inc()
		}
	}
	m.theirRequests.WithLabelValues(o.Model, code).Inc()
}

// theirAPI has what TensorFlow Serving calls a method that predicts in its metrics; over REST it writes it small.
var theirAPI = map[string]string{"predict": "Predict", "classify": "Classify", "regress": "Regress", "multi_inference": "MultiInference"}

type goodKey struct{ protocol, their, model, version, signature string }

// goodSeries are the series of the successful predictions of one key.
type goodSeries struct {
	requests, theirRequests prometheus.Counter
	latency, theirLatency   prometheus.Observer
}

func (g *goodSeries) add(took time.Duration) {
	g.requests.Inc()
	g.latency.Observe(took.Seconds())
	g.theirRequests.Inc()
	g.theirLatency.Observe(float64(took.Microseconds()))
}

func (m *metrics) goodSeries(k goodKey) *goodSeries {
	if g, ok := m.good.Load(k); ok {
		return g.(*goodSeries)
	}
	code, entry, their := inference.OK.String(), "GRPC", k.their
	if k.protocol == "rest" || k.protocol == "oip" {
		entry, their = "REST", strings.ToLower(k.their)
	}
	g, _ := m.good.LoadOrStore(k, &goodSeries{
		requests: m.requests.WithLabelValues(k.protocol, k.model, k.version, k.signature, code), theirRequests: m.theirRequests.WithLabelValues(k.model, code),
		latency: m.latency.WithLabelValues(k.protocol, k.model, k.version, k.signature), theirLatency: m.theirLatency.WithLabelValues(k.model, their, entry),
	})
	return g.(*goodSeries)
}

// batches returns what one version's batcher calls after each run. The label lookups are made once per signature.
func (m *metrics) batches(model string, number int64) func(batch.Observation) {
	version := strconv.FormatInt(number, 10)
	return func(o batch.Observation) {
		m.stats.Ran(model, number, o.Rows, o.Waits, o.Run, o.Err != nil)
		m.runTime.WithLabelValues(model, version, o.Signature).Observe(o.Run.Seconds())
		m.rows.WithLabelValues(model, version, o.Signature).Observe(float64(o.Rows))
		if o.PaddedRows > 0 {
			m.padded.WithLabelValues(model, version, o.Signature).Add(float64(o.PaddedRows))
		}
		wait := m.wait.WithLabelValues(model, version, o.Signature)
		for _, w := range o.Waits {
			wait.Observe(time.Duration(w).Seconds())
		}
	}
}

// drop removes the series of a version that is gone.
func (m *metrics) drop(model string, number int64) {
	m.stats.Drop(model, number)
	m.good.Range(func(k, _ any) bool {
		if k := k.(goodKey); k.model == model && k.version == strconv.FormatInt(number, 10) {
			m.good.Delete(k)
		}
		return true
	})
	labels := prometheus.Labels{"model": model, "version": strconv.FormatInt(number, 10)}
	for _, v := range []*prometheus.HistogramVec{m.wait, m.runTime, m.rows, m.latency} {
		v.DeletePartialMatch(labels)
	}
	m.padded.DeletePartialMatch(labels)
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
