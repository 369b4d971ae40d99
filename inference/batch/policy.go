// policy.go: TensorFlow Serving's batching parameters and what they come to.
package batch

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// DefaultMaxBatchSize is TensorFlow Serving's max_batch_size when a batching file leaves it out.
const DefaultMaxBatchSize = 1000

// Policy has TensorFlow Serving's BatchingParameters, by their names and with their meanings. The zero Policy is the default: what waits
// leaves together, without a timer. MaxBatchSize 1 turns joining off.
type Policy struct {
	// MaxBatchSize is the number of rows that a batch has at most. 0 means the last of AllowedBatchSizes, else what warm-up has proven,
	// else [DefaultMaxBatchSize].
	MaxBatchSize int64
	// BatchTimeout (batch_timeout_micros) lets a batch that is not full wait this long for company, counted from its first request,
	// even while slots are free. 0 means it never waits for that.
	BatchTimeout time.Duration
	// LatencyTarget keeps runs so small that a request which comes while one is in flight, and leaves with the next, is answered within it, as far
	// as runs are measured. 0 is none: then a run is as large as gives most.
	LatencyTarget time.Duration
	// MaxEnqueuedBatches bounds what waits for one signature, in full batches (a request that runs singly counts as one). 0 leaves only
	// the bounds of Options.
	MaxEnqueuedBatches int64
	// NumBatchThreads caps the runs in flight. 0 means as many as the runner has slots.
	NumBatchThreads int
	// AllowedBatchSizes are the only sizes that a batch may have: it is padded up to the next one with copies of its first row.
	// Ascending; the last is MaxBatchSize, or MaxExecutionBatchSize with splitting.
	AllowedBatchSizes []int64
	// PadVariableLengthInputs lets requests of different inner dimensions (ranks 1 to 6) share a batch: each tensor is padded with its
	// own first element to the largest in the batch. Outputs are not cut back, as in TensorFlow Serving.
	PadVariableLengthInputs bool
	// EnableLargeBatchSplitting cuts a request with too many rows into several runs and joins their outputs. nil (nobody said) splits.
	// Only an explicit false refuses such a request, as TensorFlow Serving does by default.
	EnableLargeBatchSplitting *bool
	// MaxExecutionBatchSize is the number of rows that a run has at most, when splitting; 0 means MaxBatchSize.
	MaxExecutionBatchSize int64
}

// Validate has every fault at once, each named by its key in the batching file.
func (p Policy) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, n := range []struct {
		key   string
		value int64
	}{
		{"max_batch_size", p.MaxBatchSize},
		{"batch_timeout_micros", int64(p.BatchTimeout)},
		{"latency_target", int64(p.LatencyTarget)},
		{"max_enqueued_batches", p.MaxEnqueuedBatches},
		{"num_batch_threads", int64(p.NumBatchThreads)},
		{"max_execution_batch_size", p.MaxExecutionBatchSize},
	} {
		if n.value < 0 {
			fault("%s: %d is negative; give a positive number, or leave it out for the default", n.key, n.value)
		}
	}
	if p.splits() && p.MaxBatchSize > 0 && p.MaxExecutionBatchSize > p.MaxBatchSize {
		fault("max_execution_batch_size: %d is larger than max_batch_size %d", p.MaxExecutionBatchSize, p.MaxBatchSize)
	}
	if n := len(p.AllowedBatchSizes); n > 0 {
		for i, size := range p.AllowedBatchSizes {
			switch {
			case size <= 0:
				fault("allowed_batch_sizes: entry %d is %d; sizes are positive", i, size)
			case i > 0 && size <= p.AllowedBatchSizes[i-1]:
				fault("allowed_batch_sizes: entry %d (%d) is not larger than the one before (%d); list them in ascending order", i, size, p.AllowedBatchSizes[i-1])
			}
		}
		last := p.AllowedBatchSizes[n-1]
		switch {
		case p.splits() && p.MaxExecutionBatchSize > 0:
			if last != p.MaxExecutionBatchSize {
				fault("allowed_batch_sizes: the last entry is %d; it must be max_execution_batch_size (%d)", last, p.MaxExecutionBatchSize)
			}
		case p.MaxBatchSize > 0 && last != p.MaxBatchSize:
			fault("allowed_batch_sizes: the last entry is %d; it must be max_batch_size (%d)", last, p.MaxBatchSize)
		}
	}
	return errors.Join(faults...)
}

func (p Policy) splits() bool {
	return p.EnableLargeBatchSplitting == nil || *p.EnableLargeBatchSplitting
}

// limits are a policy's numbers with every default filled in. They do not change.
type limits struct {
	refuse  int64 // a request with more rows is refused
	execute int64 // a request with more rows is split
	join    int64 // requests are joined up to so many rows
	weight  int64 // what waits for one signature, in rows
	slots   int
	timeout time.Duration
	target  time.Duration
	allowed []int64
	flex    bool // pad_variable_length_inputs
	share   bool // a slot may leave rows to the others, see cost.go
}

// resolve fills in the defaults. maxRows is what warm-up has proven, 0 when nobody knows.
func (p Policy) resolve(maxRows int64, slots int) limits {
	l := limits{
		refuse: math.MaxInt64, slots: max(1, slots), timeout: p.BatchTimeout, target: p.LatencyTarget, allowed: slices.Clone(p.AllowedBatchSizes),
		flex: p.PadVariableLengthInputs, share: p.BatchTimeout == 0 && len(p.AllowedBatchSizes) == 0,
	}
	l.execute = p.MaxBatchSize
	if l.execute == 0 && len(l.allowed) > 0 {
		l.execute = l.allowed[len(l.allowed)-1]
	}
	if l.execute == 0 && maxRows > 0 {
		l.execute = maxRows
	}
	if l.execute == 0 {
		l.execute = DefaultMaxBatchSize
	}
	l.execute = min(l.execute, math.MaxInt32)
	if !p.splits() {
		l.refuse = l.execute
	} else if p.MaxExecutionBatchSize > 0 {
		l.execute = min(l.execute, p.MaxExecutionBatchSize)
	}
	l.join = l.execute
	if maxRows > 0 {
		l.join = min(l.join, maxRows)
	}
	l.weight = math.MaxInt64
	if n := p.MaxEnqueuedBatches; n > 0 && n < math.MaxInt64/l.execute {
		l.weight = n * l.execute
	}
	if p.NumBatchThreads > 0 {
		l.slots = min(l.slots, p.NumBatchThreads)
	}
	return l
}

// padded is the size that a batch of so many rows is run at.
func (l *limits) padded(rows int64) int64 {
	for _, size := range l.allowed {
		if size >= rows {
			return size
		}
	}
	return rows
}
