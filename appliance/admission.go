// admission.go: what admission tells about itself: GET /v1/admission, inferd top, and the same numbers for Prometheus.
package appliance

import (
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
	"github.com/inferd/inferd/inference/worker"
)

const (
	admissionPath   = "/v1/admission"
	reportedClients = 100 // the busiest
)

// Admission is what is admitted, what waits, and who has the memory, at this moment.
func (a *Appliance) Admission() *admission.Report {
	now := time.Now()
	r := a.memory.report(now)
	if a.gate != nil {
		r.Clients, r.Requests.Refused = a.gate.Report(reportedClients)
	}
	if r.Requests.Refused == nil {
		r.Requests.Refused = map[string]int64{}
	}
	for i := range r.Models {
		m := &r.Models[i]
		r.Requests.Running += m.Running
		r.Requests.Waiting += m.Waiting
		r.Requests.WaitingBytes += m.WaitingBytes
		for reason, n := range m.Refused {
			r.Requests.Refused[reason] += n
		}
	}
	return r
}

func (a *Appliance) admissionHandler(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET")
		w.WriteHeader(http.StatusMethodNotAllowed)
		_, _ = io.WriteString(w, "GET tells what is admitted; nothing can be changed here\n") // the client is gone when this fails
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(a.Admission()) // the client is gone when this fails
}

// report is the keeper's part.
func (k *keeper) report(now time.Time) *admission.Report {
	limit := k.ledger.Limit()
	r := &admission.Report{Time: now, Models: []admission.ModelReport{}}
	r.Memory, r.Free = k.ledger.Snapshot()
	r.Requests.InFlight, r.Requests.Share = k.ledger.Requests()
	k.mu.Lock()
	s := k.sample
	r.Pressure = admission.PressureReport{Known: s.Known, Level: k.level.String(), Some10: s.Some10, Full10: s.Full10, Events: maps.Clone(s.Events)}
	r.Disk = k.disk.Report()
	k.mu.Unlock()
	r.Limit = admission.LimitReport{Bytes: limit.Bytes, Reserve: limit.Reserve, Source: limit.Source, Why: limit.Why, Used: s.Used}
	for _, v := range k.live.all() {
		r.Models = append(r.Models, v.report(now))
	}
	for _, o := range r.Memory { // those that are on their way
		if o.Owner == admission.OwnerLoading {
			r.Models = append(r.Models, admission.ModelReport{Model: o.Model, Version: o.Version, State: "loading", RunMillis: []admission.RunReport{}})
		}
	}
	slices.SortFunc(r.Models, func(a, b admission.ModelReport) int {
		return cmp.Or(strings.Compare(a.Model, b.Model), cmp.Compare(a.Version, b.Version))
	})
	return r
}

func (s *servable) report(now time.Time) admission.ModelReport {
	st := s.Batcher.Stats()
	m := admission.ModelReport{
		Model: s.model, Version: s.version, State: s.word(), Pinned: s.pinned, IdleSeconds: s.idle(now).Seconds(),
		Running: st.InFlight, Waiting: st.Queued, WaitingBytes: st.QueuedBytes, WaitMillis: millis(st.Wait), RunMillis: []admission.RunReport{},
		Answered: s.answered.Load(), Evictions: s.evictions.Load(), Refused: refusedBy(st),
	}
	if runs := s.runs.Load(); runs > 0 {
		m.Batch = float64(s.rows.Load()) / float64(runs)
	}
	for _, t := range st.Runs {
		m.RunMillis = append(m.RunMillis, admission.RunReport{Rows: t.Rows, Millis: millis(t.Took)})
	}
	var p50, p99 time.Duration
	m.Rate, p50, p99 = s.window.read(now)
	m.P50Millis, m.P99Millis = millis(p50), millis(p99)
	return m
}

// word is the version's state.
func (s *servable) word() string {
	if s.account.parked() {
		return "parked"
	}
	if m, ok := s.runner.(*worker.Model); ok {
		return m.State().String()
	}
	return worker.Live.String()
}

func refusedBy(st batch.Stats) map[string]int64 {
	out := make(map[string]int64)
	for reason, n := range map[string]int64{inference.ReasonQueueFull: st.Refused + st.Yielded, inference.ReasonDeadline: st.Late + st.Expired} {
		if n > 0 {
			out[reason] = n
		}
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// accountMetrics are the Report's numbers, read at each scrape.
type accountMetrics struct{ a *Appliance }

var (
	version2     = []string{"model", "version"}
	descLimit    = prometheus.NewDesc("inferd_memory_limit_bytes", "The memory limit in force for inferd and its workers, by where it comes from; 0: none is known.", []string{"source"}, nil)
	descReserve  = prometheus.NewDesc("inferd_memory_reserve_bytes", "What is kept free of the limit.", nil, nil)
	descUsed     = prometheus.NewDesc("inferd_memory_used_bytes", "What inferd and its workers were found to use.", nil, nil)
	descFree     = prometheus.NewDesc("inferd_memory_free_bytes", "What may still be reserved.", nil, nil)
	descBooked   = prometheus.NewDesc("inferd_memory_booked_bytes", "What is booked, by owner.", []string{"owner", "model", "version"}, nil)
	descMeasured = prometheus.NewDesc("inferd_memory_measured_bytes", "What was found, by owner.", []string{"owner", "model", "version"}, nil)
	descPressure = prometheus.NewDesc("inferd_memory_pressure", "How short memory is: 0 none, 1 some, 2 high.", nil, nil)
	descStall    = prometheus.NewDesc("inferd_memory_stall_percent", "Share of the last 10 s in which some, or all, tasks stood still for memory.", []string{"kind"}, nil)
	descParked   = prometheus.NewDesc("inferd_model_parked", "1 while the version is parked: it is loaded again by the next request.", version2, nil)
	descEvicted  = prometheus.NewDesc("inferd_model_evictions_total", "How often the version was parked.", version2, nil)
	descWait     = prometheus.NewDesc("inferd_batch_predicted_wait_seconds", "How long a request that comes now would wait.", version2, nil)
	descDisk     = prometheus.NewDesc("inferd_disk_free_bytes", "Free space where the state is kept.", nil, nil)
	descFloor    = prometheus.NewDesc("inferd_disk_floor_bytes", "Free space below which nothing durable is begun.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *accountMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLimit, descReserve, descUsed, descFree, descBooked, descMeasured, descPressure, descStall, descParked, descEvicted, descWait, descDisk, descFloor} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *accountMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	r := c.a.Admission()
	gauge(descLimit, float64(r.Limit.Bytes), r.Limit.Source)
	gauge(descReserve, float64(r.Limit.Reserve))
	gauge(descUsed, float64(r.Limit.Used))
	gauge(descFree, float64(r.Free))
	type key struct{ owner, model, version string }
	booked, measured := make(map[key]int64), make(map[key]int64) // a version that is loaded again while it drains has two entries
	for _, o := range r.Memory {
		k := key{owner: o.Owner, model: o.Model}
		if o.Model != "" {
			k.version = strconv.FormatInt(o.Version, 10)
		}
		booked[k] += o.Booked
		measured[k] += o.Measured
	}
	for k, n := range booked {
		gauge(descBooked, float64(n), k.owner, k.model, k.version)
		gauge(descMeasured, float64(measured[k]), k.owner, k.model, k.version)
	}
	gauge(descPressure, float64(slices.Index([]string{"none", "some", "high"}, r.Pressure.Level)))
	if r.Pressure.Known {
		gauge(descStall, r.Pressure.Some10, "some")
		gauge(descStall, r.Pressure.Full10, "full")
	}
	var last key
	for _, m := range r.Models { // sorted
		version := strconv.FormatInt(m.Version, 10)
		if k := (key{"", m.Model, version}); m.State == "loading" || k == last {
			continue
		} else {
			last = k
		}
		gauge(descParked, number(m.State == "parked"), m.Model, version)
		out <- prometheus.MustNewConstMetric(descEvicted, prometheus.CounterValue, float64(m.Evictions), m.Model, version)
		gauge(descWait, m.WaitMillis/1000, m.Model, version)
	}
	gauge(descDisk, float64(r.Disk.Free))
	gauge(descFloor, float64(r.Disk.Floor))
}
