// policy_test.go: what a batching file may say, and what it comes to.
package batch

import (
	"math"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		policy Policy
		faults []string
	}{
		"nothing":             {Policy{}, nil},
		"all":                 {Policy{MaxBatchSize: 32, BatchTimeout: ms, MaxEnqueuedBatches: 4, NumBatchThreads: 2, AllowedBatchSizes: []int64{1, 8, 32}, PadVariableLengthInputs: true}, nil},
		"splitting":           {Policy{MaxBatchSize: 64, EnableLargeBatchSplitting: ptr(true), MaxExecutionBatchSize: 16, AllowedBatchSizes: []int64{4, 16}}, nil},
		"not splitting":       {Policy{MaxBatchSize: 64, EnableLargeBatchSplitting: ptr(false), MaxExecutionBatchSize: 16, AllowedBatchSizes: []int64{4, 64}}, nil},
		"sizes without a max": {Policy{AllowedBatchSizes: []int64{4, 16}}, nil},
		"negative": {Policy{MaxBatchSize: -1, BatchTimeout: -1, MaxEnqueuedBatches: -2, NumBatchThreads: -3, MaxExecutionBatchSize: -4},
			[]string{"max_batch_size: -1", "batch_timeout_micros: -1", "max_enqueued_batches: -2", "num_batch_threads: -3", "max_execution_batch_size: -4"}},
		"order":             {Policy{AllowedBatchSizes: []int64{4, 4, 2}, MaxBatchSize: 2}, []string{"entry 1 (4)", "entry 2 (2)"}},
		"zero size":         {Policy{AllowedBatchSizes: []int64{0, 2}}, []string{"entry 0 is 0"}},
		"last":              {Policy{AllowedBatchSizes: []int64{4, 8}, MaxBatchSize: 16}, []string{"it must be max_batch_size (16)"}},
		"last of splitting": {Policy{AllowedBatchSizes: []int64{4, 16}, MaxBatchSize: 16, MaxExecutionBatchSize: 8}, []string{"it must be max_execution_batch_size (8)"}},
		"too large to run":  {Policy{MaxBatchSize: 16, MaxExecutionBatchSize: 32}, []string{"max_execution_batch_size: 32 is larger than max_batch_size 16"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.policy.Validate()
			if (err != nil) != (len(c.faults) > 0) {
				t.Fatal(err)
			}
			for _, f := range c.faults {
				if !strings.Contains(err.Error(), f) {
					t.Errorf("%q is not in: %v", f, err)
				}
			}
		})
	}
}

func TestResolve(t *testing.T) {
	const none = math.MaxInt64
	for name, c := range map[string]struct {
		policy                        Policy
		proven                        int64
		refuse, execute, join, weight int64
		slots                         int
	}{
		"default":               {Policy{}, 0, none, 1000, 1000, none, 4},
		"default, proven":       {Policy{}, 64, none, 64, 64, none, 4},
		"configured":            {Policy{MaxBatchSize: 32, NumBatchThreads: 2, MaxEnqueuedBatches: 5}, 0, none, 32, 32, 160, 2},
		"more threads":          {Policy{NumBatchThreads: 9}, 0, none, 1000, 1000, none, 4},
		"configured, proven":    {Policy{MaxBatchSize: 32}, 8, none, 32, 8, none, 4},
		"no splitting":          {Policy{MaxBatchSize: 32, EnableLargeBatchSplitting: ptr(false), MaxExecutionBatchSize: 8}, 0, 32, 32, 32, none, 4},
		"splitting":             {Policy{MaxBatchSize: 32, EnableLargeBatchSplitting: ptr(true), MaxExecutionBatchSize: 8}, 0, none, 8, 8, none, 4},
		"max from allowed":      {Policy{AllowedBatchSizes: []int64{2, 16}}, 0, none, 16, 16, none, 4},
		"enqueued, no overflow": {Policy{MaxEnqueuedBatches: math.MaxInt64 / 2}, 0, none, 1000, 1000, none, 4},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.policy.resolve(c.proven, 4)
			if l.refuse != c.refuse || l.execute != c.execute || l.join != c.join || l.weight != c.weight || l.slots != c.slots {
				t.Errorf("got %+v", l)
			}
		})
	}
	l := Policy{AllowedBatchSizes: []int64{2, 8}}.resolve(0, 0)
	for rows, want := range map[int64]int64{1: 2, 2: 2, 3: 8, 8: 8, 9: 9} {
		if got := l.padded(rows); got != want {
			t.Errorf("%d rows are padded to %d, want %d", rows, got, want)
		}
	}
	if l.slots != 1 {
		t.Errorf("a runner without slots gets %d", l.slots)
	}
}
