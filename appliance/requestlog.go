// requestlog.go: the request log among the parts: what the configuration says of it, its condition, its metrics.
package appliance

import (
	"errors"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/appliance/reqlog"
)

// requestsDir has the request logs, in state_dir.
const requestsDir = "requests"

func (a *Appliance) newRequestLog() *reqlog.Log {
	l := a.cfg.RequestLog
	return reqlog.New(reqlog.Options{
		Dir:      filepath.Join(a.cfg.StateDir, requestsDir),
		Rule:     func(model string) reqlog.Rule { m, _ := a.current.Load().Model(model); return ruleOf(m.RequestLog) },
		MaxBytes: int64(l.MaxBytes), FileBytes: int64(l.FileBytes), MaxAge: l.MaxAge, FileAge: l.FileAge,
		Room: func() error {
			a.memory.mu.Lock()
			d := a.memory.disk
			a.memory.mu.Unlock()
			if d.Refuses() {
				return errors.New(d.String())
			}
			return nil
		},
		Trouble: a.requestLogTrouble, Log: a.opts.Log,
	})
}

func ruleOf(l config.ModelLog) reqlog.Rule {
	r := reqlog.Rule{Rate: l.Rate, Payloads: l.Payloads}
	if l.Format == config.RequestTFRecord {
		r.Format = reqlog.TFRecord
	}
	return r
}

func (a *Appliance) requestLogTrouble(err error) {
	if err == nil {
		a.health.Clear(health.CodeRequestLog, "")
	} else {
		a.health.Set(health.Condition{Code: health.CodeRequestLog, Severity: health.Warning,
			Message: "requests are not logged, for the disk of state_dir does not take them: " + err.Error() + "; they are answered all the same; make room, or lower request_log.max_bytes"})
	}
	a.news.tell()
}

// requestLogMetrics is a prometheus.Collector.
type requestLogMetrics struct{ log *reqlog.Log }

var (
	loggedDesc   = prometheus.NewDesc("inferd_request_log_records_total", "Requests that were written to the request log.", nil, nil)
	unloggedDesc = prometheus.NewDesc("inferd_request_log_dropped_total", "Requests that were to be logged and are not, by reason.", []string{"reason"}, nil)
	logBytesDesc = prometheus.NewDesc("inferd_request_log_bytes", "Bytes of the request log's files.", nil, nil)
)

// Describe implements prometheus.Collector.
func (*requestLogMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- loggedDesc
	ch <- unloggedDesc
	ch <- logBytesDesc
}

// Collect implements prometheus.Collector.
func (m *requestLogMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.log.Stats()
	ch <- prometheus.MustNewConstMetric(loggedDesc, prometheus.CounterValue, float64(s.Written))
	for why, n := range s.Dropped {
		ch <- prometheus.MustNewConstMetric(unloggedDesc, prometheus.CounterValue, float64(n), string(why))
	}
	ch <- prometheus.MustNewConstMetric(logBytesDesc, prometheus.GaugeValue, float64(s.Bytes))
}
