// statistics.go: the statistics extension: what was asked of each version since it was loaded.
package oip

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// Statistics count for each version that is loaded. They may be used from any number of goroutines.
type Statistics struct {
	versions sync.Map // versionKey to *counts
}

type versionKey struct {
	model  string
	number int64
}

// counts are one version's.
type counts struct {
	last                   atomic.Int64 // unix milliseconds of the last good answer
	success, fail          duration     // requests
	queue, infer           duration     // requests, by how long they waited and how long their run took
	inferences, executions atomic.Int64 // rows, runs
	mu                     sync.Mutex
	batches                map[int64]*Duration // by rows; guarded by mu
}

type duration struct{ count, ns atomic.Int64 }

func (d *duration) add(n int64, took time.Duration) {
	d.count.Add(n)
	d.ns.Add(n * int64(took))
}

func (d *duration) load() Duration { return Duration{d.count.Load(), d.ns.Load()} }

// maxBatchSizes bounds the sizes that are told apart.
const maxBatchSizes = 1 << 12

// NewStatistics has counted nothing.
func NewStatistics() *Statistics { return new(Statistics) }

func (s *Statistics) of(model string, number int64) *counts {
	key := versionKey{model, number}
	if c, ok := s.versions.Load(key); ok {
		return c.(*counts)
	}
	c, _ := s.versions.LoadOrStore(key, &counts{batches: make(map[int64]*Duration)})
	return c.(*counts)
}

// Observe counts one finished request of any protocol. It allocates nothing for a version that it knows.
func (s *Statistics) Observe(o api.Observation) {
	switch o.Method {
	case "predict", "classify", "regress", "multi_inference":
	default:
		return
	}
	if o.Version == 0 {
		return
	}
	c := s.of(o.Model, o.Version)
	if o.Code != inference.OK {
		c.fail.add(1, o.Took)
		return
	}
	c.success.add(1, o.Took)
	c.last.Store(time.Now().UnixMilli())
}

// Ran counts one run of the graph: of so many rows, for requests that waited so long each.
func (s *Statistics) Ran(model string, number, rows int64, waits []time.Duration, run time.Duration, failed bool) {
	if failed {
		return
	}
	c := s.of(model, number)
	for _, w := range waits {
		c.queue.add(1, w)
	}
	c.infer.add(int64(len(waits)), run)
	c.inferences.Add(rows)
	c.executions.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.batches[rows]
	if b == nil {
		if len(c.batches) == maxBatchSizes {
			return
		}
		b = new(Duration)
		c.batches[rows] = b
	}
	b.Count++
	b.Ns += int64(run)
}

// Drop forgets a version that is gone.
func (s *Statistics) Drop(model string, number int64) { s.versions.Delete(versionKey{model, number}) }

// Duration is how often something was done, and how long that took in all.
type Duration struct {
	Count int64 `json:"count"`
	Ns    int64 `json:"ns"`
}

// ModelStatistics are one version's.
type ModelStatistics struct {
	Name           string            `json:"name"`
	Version        string            `json:"version"`
	LastInference  int64             `json:"last_inference"` // milliseconds since 1970, 0 without one
	InferenceCount int64             `json:"inference_count"`
	ExecutionCount int64             `json:"execution_count"`
	Inference      InferStatistics   `json:"inference_stats"`
	Batches        []BatchStatistics `json:"batch_stats"`
}

// InferStatistics say where the time of requests went. What is done with tensors before and after a run is not timed here, and nothing is answered from a cache: these are zeros.
type InferStatistics struct {
	Success       Duration `json:"success"`
	Fail          Duration `json:"fail"`
	Queue         Duration `json:"queue"`
	ComputeInput  Duration `json:"compute_input"`
	ComputeInfer  Duration `json:"compute_infer"`
	ComputeOutput Duration `json:"compute_output"`
	CacheHit      Duration `json:"cache_hit"`
	CacheMiss     Duration `json:"cache_miss"`
}

// BatchStatistics are of the runs of one size.
type BatchStatistics struct {
	BatchSize     int64    `json:"batch_size"`
	ComputeInput  Duration `json:"compute_input"`
	ComputeInfer  Duration `json:"compute_infer"`
	ComputeOutput Duration `json:"compute_output"`
}

// Statistics are those of the versions that spec names: one, a model's, or with no model those of all that the grant's holder may know of. They are of available
// versions only.
func (s *Service) Statistics(grant *access.Grant, spec inference.Spec) ([]ModelStatistics, *inference.Error) {
	list := []ModelStatistics{} // not null on the wire
	models := []string{spec.Model}
	if spec.Model == "" {
		models = s.svc.Models()
	}
	for _, name := range models {
		if !grant.For(name) {
			continue
		}
		one := spec
		one.Model = name
		versions, err := s.svc.Status(one)
		if err != nil && spec.Model != "" {
			return nil, unknown(spec, err)
		}
		available := 0
		for _, v := range slices.Backward(versions) {
			if v.State == inference.StateAvailable {
				available++
				list = append(list, s.opts.Statistics.read(name, v.Version))
			}
		}
		if available == 0 && spec.Model != "" {
			h, err := s.Acquire(one)
			if err != nil {
				return nil, err
			}
			h.Release() // it has just come
			list = append(list, s.opts.Statistics.read(name, h.Version().Number))
		}
	}
	return list, nil
}

func (s *Statistics) read(model string, number int64) ModelStatistics {
	m := ModelStatistics{Name: model, Version: strconv.FormatInt(number, 10), Batches: []BatchStatistics{}}
	found, ok := s.versions.Load(versionKey{model, number})
	if !ok {
		return m
	}
	c := found.(*counts)
	m.LastInference, m.InferenceCount, m.ExecutionCount = c.last.Load(), c.inferences.Load(), c.executions.Load()
	m.Inference = InferStatistics{Success: c.success.load(), Fail: c.fail.load(), Queue: c.queue.load(), ComputeInfer: c.infer.load()}
	m.Inference.ComputeInput.Count, m.Inference.ComputeOutput.Count = m.Inference.ComputeInfer.Count, m.Inference.ComputeInfer.Count
	c.mu.Lock()
	defer c.mu.Unlock()
	for rows, d := range c.batches {
		b := BatchStatistics{BatchSize: rows, ComputeInfer: *d}
		b.ComputeInput.Count, b.ComputeOutput.Count = d.Count, d.Count
		m.Batches = append(m.Batches, b)
	}
	slices.SortFunc(m.Batches, func(a, b BatchStatistics) int { return cmp.Compare(a.BatchSize, b.BatchSize) })
	return m
}
