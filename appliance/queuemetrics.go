// queuemetrics.go: what Prometheus sees of the queue.
package appliance

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/storage"
)

// queueMetrics are fed by the queue and by its dispatcher.
type queueMetrics struct {
	commits prometheus.Counter
	failed  prometheus.Counter
	writes  prometheus.Counter
	fsync   prometheus.Histogram
	ended   *prometheus.CounterVec // model state
	tries   *prometheus.CounterVec // model what
	waited  *prometheus.HistogramVec
}

func newQueueMetrics(r prometheus.Registerer) *queueMetrics {
	m := &queueMetrics{
		commits: prometheus.NewCounter(prometheus.CounterOpts{Name: "inferd_queue_commits_total", Help: "Transactions of the queue's file; many writers share one."}),
		failed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "inferd_queue_failed_commits_total", Help: "Transactions that the disk did not take."}),
		writes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "inferd_queue_writes_total", Help: "Submits, leases, results and the like that were committed."}),
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "inferd_queue_fsync_seconds", Help: "Writing a transaction's pages and making them durable.",
			Buckets: secondsBuckets}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "inferd_queue_jobs_total", Help: "Runs of jobs by how they ended; queued: it waits for another."}, []string{"model", "state"}),
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "inferd_queue_attempts_total", Help: "Failed runs that were counted: attempt, or death of the worker."}, []string{"model", "kind"}),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "inferd_queue_job_seconds", Help: "From a job's submit to its end.",
			Buckets: append(secondsBuckets[:len(secondsBuckets):len(secondsBuckets)], 60, 300, 3600, 86400)}, []string{"model"}),
	}
	r.MustRegister(m.commits, m.failed, m.writes, m.fsync, m.ended, m.tries, m.waited)
	return m
}

// commit is storage.QueueOptions.Observe.
func (m *queueMetrics) commit(c storage.Commit) {
	if c.Err != nil {
		m.failed.Inc()
		return
	}
	m.commits.Inc()
	m.writes.Add(float64(c.Writes))
	m.fsync.Observe(c.Synced.Seconds())
}

// run is jobs.Options.Observe. The models are those that had jobs, which are known ones.
func (m *queueMetrics) run(r jobs.Run) {
	m.ended.WithLabelValues(r.Model, r.State.String()).Inc()
	if r.Attempt {
		m.tries.WithLabelValues(r.Model, "attempt").Inc()
	}
	if r.Death {
		m.tries.WithLabelValues(r.Model, "death").Inc()
	}
	if r.State.Final() {
		m.waited.WithLabelValues(r.Model).Observe(r.Waited.Seconds())
	}
}

// queueStates are read at each scrape.
type queueStates struct{ a *Appliance }

var (
	descDepth    = prometheus.NewDesc("inferd_queue_depth", "Jobs that wait or run, by model.", []string{"model", "state"}, nil)
	descWaiting  = prometheus.NewDesc("inferd_queue_waiting_bytes", "Bodies of the jobs that wait or run, as they are stored, by model.", []string{"model"}, nil)
	descOldest   = prometheus.NewDesc("inferd_queue_oldest_seconds", "Age of the oldest job that could run now, by model; 0: there is none.", []string{"model"}, nil)
	descKept     = prometheus.NewDesc("inferd_queue_bytes", "Bodies and results in the queue's file, as they are stored.", nil, nil)
	descFile     = prometheus.NewDesc("inferd_queue_file_bytes", "Size of the queue's file; free pages in it are used again.", nil, nil)
	descFinished = prometheus.NewDesc("inferd_queue_finished", "Jobs that have ended and are kept.", nil, nil)
	descDead     = prometheus.NewDesc("inferd_queue_dead", "Dead letters.", nil, nil)
	descDamaged  = prometheus.NewDesc("inferd_queue_damaged_total", "Damaged records that were set aside.", nil, nil)
	descDegraded = prometheus.NewDesc("inferd_queue_degraded", "1 while no jobs are taken, for the disk does not take them.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *queueStates) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDepth, descWaiting, descOldest, descKept, descFile, descFinished, descDead, descDamaged, descDegraded} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *queueStates) Collect(out chan<- prometheus.Metric) {
	if c.a.jobs == nil || c.a.jobs.Queue() == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	q, now := c.a.jobs.Queue(), c.a.jobs.Now()
	for _, m := range q.Models() {
		gauge(descDepth, float64(m.Queued-m.Delayed), m.Model, "queued")
		gauge(descDepth, float64(m.Delayed), m.Model, "delayed")
		gauge(descDepth, float64(m.Leased), m.Model, "leased")
		gauge(descWaiting, float64(m.Bytes), m.Model)
		var age time.Duration
		if at, err := q.Oldest(m.Model); err == nil && !at.IsZero() {
			age = max(0, now.Sub(at))
		}
		gauge(descOldest, age.Seconds(), m.Model)
	}
	s := q.Stats()
	gauge(descKept, float64(s.Bytes))
	gauge(descFile, float64(s.FileBytes))
	gauge(descFinished, float64(s.Finished))
	gauge(descDead, float64(s.Dead))
	out <- prometheus.MustNewConstMetric(descDamaged, prometheus.CounterValue, float64(s.Damaged))
	gauge(descDegraded, number(s.Degraded))
}
