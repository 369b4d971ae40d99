// status.go: health, the status for operators, and the states that Prometheus reads: views of the same few sources.
package appliance

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// watchHealth tells the tracker what the updater knows, at each change, until ctx ends.
func (a *Appliance) watchHealth(ctx context.Context) error {
	if a.load.missing != nil {
		a.health.Set(health.Condition{Code: health.CodeRuntime, Severity: health.Unready, Message: a.load.missing.Error()})
	}
	for {
		s, changed := a.updater.Watch()
		a.health.SetModels(s.Scanned, healthModels(s))
		a.health.Replace([]string{health.CodeJournal}, a.journal.conditions(s.Journal))
		a.health.Replace([]string{health.CodeBasePath, health.CodeRefused, health.CodeWatch, health.CodeLabels, health.CodeDisk, health.CodeTrial, health.CodeMemory}, conditions(s))
		a.news.tell() // only now, so that whoever is woken does not read the state before
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func healthModels(s updater.Status) (out []health.Model) {
	for _, m := range s.Models {
		if !m.Removed {
			out = append(out, health.Model{Name: m.Name, Required: m.Configured && !m.Optional && !m.Unloaded, Verdict: m.Verdict, Live: len(m.Live) > 0, Reason: reason(m)})
		}
	}
	return out
}

// reason is why a model has nothing live: its base path's problem, else what the highest refused version said, else how far the highest one is.
func reason(m updater.ModelStatus) string {
	if m.Problem != "" {
		return m.Problem
	}
	for _, v := range m.Versions {
		if v.Reason != "" {
			if strings.HasPrefix(v.Reason, "model ") {
				return v.Reason // a refusal's sentence names model and version
			}
			return fmt.Sprintf("version %d: %s", v.Number, v.Reason)
		}
	}
	if len(m.Versions) > 0 {
		return fmt.Sprintf("version %d is %v", m.Versions[0].Number, m.Versions[0].State)
	}
	return ""
}

func conditions(s updater.Status) (out []health.Condition) {
	switch { // one condition: the first says more
	case s.Watch != "":
		out = append(out, health.Condition{Code: health.CodeWatch, Severity: health.Info, Message: "changes are found by polling alone: " + s.Watch})
	case s.Polled != "":
		out = append(out, health.Condition{Code: health.CodeWatch, Severity: health.Info, Message: "models directory " + s.Polled})
	}
	if s.Problem != "" {
		out = append(out, health.Condition{Code: health.CodeBasePath, Severity: health.Warning, Message: s.Problem})
	}
	for _, m := range s.Models {
		if m.Problem != "" && !m.Removed {
			out = append(out, health.Condition{Code: health.CodeBasePath, Model: m.Name, Severity: health.Warning, Message: "model " + m.Name + ": " + m.Problem})
		}
		if m.Crowded != "" {
			out = append(out, health.Condition{Code: health.CodeDisk, Model: m.Name, Severity: health.Warning, Message: "model " + m.Name + ": " + m.Crowded})
		}
		if m.Polled != "" && !m.Removed && (m.Configured || s.Polled == "") { // else it is said of the models directory
			out = append(out, health.Condition{Code: health.CodeWatch, Model: m.Name, Severity: health.Info, Message: "model " + m.Name + ": base path " + m.Polled})
		}
		if len(m.Held) > 0 && !m.Removed {
			out = append(out, health.Condition{Code: health.CodeLabels, Model: m.Name, Severity: health.Warning,
				Message: fmt.Sprintf("model %s: labels %v name versions that are not available", m.Name, m.Held)})
		}
		out = append(out, trialConditions(m)...)
		for _, v := range m.Versions {
			if v.State == updater.StateQuarantined {
				out = append(out, health.Condition{Code: health.CodeRefused, Model: m.Name, Severity: health.Warning, Since: v.Since,
					Message: v.Reason}) // which names the model and the version
				break // one per model: the highest
			}
		}
	}
	return out
}

func (a *Appliance) liveness(w http.ResponseWriter, _ *http.Request) {
	answer(w, a.health.Report().Live, "live", "not live")
}

func (a *Appliance) readiness(w http.ResponseWriter, r *http.Request) {
	if model := r.URL.Query().Get("model"); model != "" {
		ready, known := a.serving(model)
		switch {
		case !known:
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprintf(w, "no model is called %q\n", model) // the client is gone when this fails
		default:
			answer(w, ready && !a.isDraining(), "ready", "no version of the model answers")
		}
		return
	}
	report := a.health.Report()
	answer(w, report.Ready && !a.isDraining(), "ready", report.Summary())
}

func answer(w http.ResponseWriter, ok bool, yes, no string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		yes = no
	}
	_, _ = fmt.Fprintln(w, yes) // the client is gone when this fails
}

func (a *Appliance) isDraining() bool {
	select {
	case <-a.draining:
		return true
	default:
		return false
	}
}

// serving is grpc.health.v1's question: "" is the appliance, anything else a model; the rpc package knows the services' own names. A model
// whose worker is down at the moment is not serving, though its version is available. Only the version that a request without a number
// gets counts: one that drains goes down as it should.
func (a *Appliance) serving(service string) (serving, known bool) {
	if service == "" {
		return a.health.Report().Ready, true
	}
	ready, known := a.health.Ready(service)
	if !ready {
		return false, known
	}
	h, err := a.catalog.Acquire(inference.Spec{Model: service, Steady: true})
	if err != nil {
		return false, known
	}
	defer h.Release()
	s, ok := h.Servable().(*servable)
	return !ok || !s.down(), known
}

// changed is closed when an answer of serving may have changed.
func (a *Appliance) changed() <-chan struct{} { return a.news.next() }

// Status is the whole appliance at this moment. It reads the workers' memory, milliseconds each.
func (a *Appliance) Status() control.Status {
	report, scanned := a.health.Report(), a.updater.Status()
	s := control.Status{
		Version: a.opts.Version, PID: os.Getpid(), Since: a.since, Live: report.Live, Ready: report.Ready && !a.isDraining(),
		GRPC: str(a.doors.grpc), HTTP: str(a.doors.http), LastRun: a.lastRun, Asks: a.asks(),
		Runtime:    control.Runtime{Library: a.load.now.Load().library, Isolation: string(a.load.gpus.known()), Sandbox: a.load.confinement.String()},
		Conditions: []control.Condition{}, Models: []control.Model{},
	}
	if a.load.missing != nil {
		s.Runtime.Error = a.load.missing.Error()
	}
	for _, c := range report.Conditions {
		s.Conditions = append(s.Conditions, control.Condition{Code: c.Code, Severity: c.Severity.String(), Model: c.Model, Message: c.Message, Since: c.Since})
	}
	live := a.load.live.all()
	for _, m := range scanned.Models {
		out := control.Model{Name: m.Name, BasePath: m.BasePath, Ready: len(m.Live) > 0, Optional: m.Optional, Intent: m.Intent, Problem: m.Problem, Trial: trialOf(m), Versions: []control.Version{}}
		for _, label := range slices.Sorted(maps.Keys(m.Labels)) {
			if m.Removed {
				break // nobody asks for them any more
			}
			out.Labels = append(out.Labels, control.Label{Name: label, Version: m.Labels[label], By: m.LabelsBy[label], Held: slices.Contains(m.Held, label)})
		}
		public, _ := a.catalog.Status(m.Name)
		for _, v := range m.Versions {
			cv := control.Version{Number: v.Number, State: stateOf(public, v.Number), Stage: v.State.String(), Message: v.Reason, Since: v.Since, KeptCopy: v.KeptCopy}
			if v.State == updater.StateLive {
				cv.Worker, cv.Proof = workerOf(live, m.Name, v.Number), proofOf(v)
			}
			out.Versions = append(out.Versions, cv)
		}
		s.Models = append(s.Models, out)
	}
	return s
}

func stateOf(public []inference.VersionStatus, number int64) string {
	for _, v := range public {
		if v.Version == number {
			return v.State.String()
		}
	}
	return "-"
}

func workerOf(live []*servable, model string, number int64) *control.Worker {
	for _, s := range live {
		if s.model != model || s.version != number {
			continue
		}
		st, ok := s.stats()
		if !ok {
			return nil
		}
		w := &control.Worker{PID: st.PID, State: st.State.String(), PrivateBytes: st.Memory.Private, Restarts: st.Restarts, Device: st.Device}
		if how := s.from.tuner.wayOf(s.runner); how != nil && !how.plain {
			w.Plan = how.plan.String()
		}
		if st.LastDeath != nil {
			w.LastDeath = st.LastDeath.Reason
		}
		return w
	}
	return nil
}

// down reports whether the version's worker is not there to answer.
func (s *servable) down() bool {
	m, ok := s.runner.(*worker.Model)
	return ok && m.State() != worker.Live && !s.account.parked()
}

// states are read at each scrape.
type states struct{ a *Appliance }

var (
	descVersions = prometheus.NewDesc("inferd_model_versions", "Versions of a model by state.", []string{"model", "state"}, nil)
	descMemory   = prometheus.NewDesc("inferd_worker_private_bytes", "Private memory of the version's worker process.", []string{"model", "version"}, nil)
	descPSS      = prometheus.NewDesc("inferd_worker_pss_bytes", "Proportional memory of the version's worker process.", []string{"model", "version"}, nil)
	descShared   = prometheus.NewDesc("inferd_worker_shared_bytes", "Tensor memory shared with the version's worker.", []string{"model", "version"}, nil)
	descRestarts = prometheus.NewDesc("inferd_worker_restarts_total", "Deaths of the version's worker that were followed by a new one.", []string{"model", "version"}, nil)
	descUp       = prometheus.NewDesc("inferd_worker_up", "1 while the version's worker answers.", []string{"model", "version"}, nil)
	descQueued   = prometheus.NewDesc("inferd_batch_queued", "Requests that wait for a run.", []string{"model", "version"}, nil)
	descRefused  = prometheus.NewDesc("inferd_batch_refused_total", "Requests refused because the version's queue was full.", []string{"model", "version"}, nil)
	descReady    = prometheus.NewDesc("inferd_ready", "1 when the appliance is ready.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *states) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descVersions, descMemory, descPSS, descShared, descRestarts, descUp, descQueued, descRefused, descReady} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *states) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(descReady, number(c.a.health.Report().Ready && !c.a.isDraining()))
	for _, m := range c.a.updater.Status().Models {
		count := make(map[string]int)
		for _, v := range m.Versions {
			count[v.State.String()]++
		}
		for state, n := range count {
			gauge(descVersions, float64(n), m.Name, state)
		}
	}
	for _, s := range c.a.load.live.all() {
		version := strconv.FormatInt(s.version, 10)
		b := s.Batcher.Stats()
		gauge(descQueued, float64(b.Queued), s.model, version)
		counter(descRefused, float64(b.Refused), s.model, version)
		if st, ok := s.stats(); ok {
			gauge(descMemory, float64(st.Memory.Private), s.model, version)
			gauge(descPSS, float64(st.Memory.PSS), s.model, version)
			gauge(descShared, float64(st.SharedBytes), s.model, version)
			counter(descRestarts, float64(st.Restarts), s.model, version)
			gauge(descUp, number(st.State == worker.Live), s.model, version)
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
