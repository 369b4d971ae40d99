// judge_test.go: what becomes of a job after each kind of failure.
package jobs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

func TestJudge(t *testing.T) {
	set := Settings{MaxAttempts: 3, MaxDeaths: 2, Backoff: time.Second, MaxBackoff: time.Minute}
	e := func(code inference.Code, reason string, cause error) *inference.Error {
		return &inference.Error{Code: code, Reason: reason, Msg: "SIGSEGV and the like", Err: cause, RetryAfter: 300 * time.Millisecond, Version: 3}
	}
	died := fmt.Errorf("worker 7: %w", inference.ErrWorkerDied)
	for name, c := range map[string]struct {
		err  *inference.Error
		it   storage.Item
		want string
	}{
		"it killed twice in the batcher": {e(inference.InvalidArgument, inference.ReasonSuspect, nil), storage.Item{}, "dead INVALID_ARGUMENT suspect"},
		"first death":                    {e(inference.Unavailable, inference.ReasonWorker, died), storage.Item{}, "death 750ms"},
		"second death":                   {e(inference.Unavailable, inference.ReasonWorker, died), storage.Item{Deaths: 1}, "dead UNAVAILABLE worker"},
		"over run_timeout":               {e(inference.DeadlineExceeded, inference.ReasonWorker, inference.ErrRunTimeout), storage.Item{}, "death 750ms"},
		"the worker is not there":        {e(inference.Unavailable, inference.ReasonWorker, inference.ErrClosed), storage.Item{Deaths: 1, Attempts: 2}, "back 300ms paused"},
		"a full queue":                   {e(inference.Unavailable, inference.ReasonQueueFull, nil), storage.Item{Attempts: 2}, "back 300ms paused"},
		"it gave way":                    {e(inference.ResourceExhausted, inference.ReasonRate, nil), storage.Item{Attempts: 2}, "back 300ms paused"},
		"no memory":                      {e(inference.ResourceExhausted, inference.ReasonMemory, nil), storage.Item{Attempts: 2}, "back 300ms paused"},
		"no time":                        {e(inference.DeadlineExceeded, inference.ReasonDeadline, nil), storage.Item{Attempts: 2}, "back 300ms paused"},
		"it is being loaded":             {e(inference.Unavailable, inference.ReasonLoading, nil), storage.Item{Attempts: 2}, "back 300ms paused"},
		"it is being unloaded":           {e(inference.Unavailable, inference.ReasonDraining, nil), storage.Item{Attempts: 2}, "back 300ms paused"},
		"no such version":                {e(inference.NotFound, inference.ReasonModel, nil), storage.Item{Attempts: 2}, "back 7.5s"},
		"wrong input":                    {e(inference.InvalidArgument, inference.ReasonInput, nil), storage.Item{}, "failed INVALID_ARGUMENT input"},
		"the graph says wrong input":     {e(inference.InvalidArgument, inference.ReasonRuntime, nil), storage.Item{}, "failed INVALID_ARGUMENT runtime"},
		"no such signature":              {e(inference.FailedPrecondition, inference.ReasonModel, nil), storage.Item{}, "failed FAILED_PRECONDITION model"},
		"an answer too large":            {e(inference.OutOfRange, inference.ReasonTooLarge, nil), storage.Item{}, "failed OUT_OF_RANGE too_large"},
		"the graph fails":                {e(inference.Internal, inference.ReasonRuntime, nil), storage.Item{}, "attempt 750ms"},
		"the graph fails again":          {e(inference.Internal, inference.ReasonRuntime, nil), storage.Item{Attempts: 1}, "attempt 1.5s"},
		"the graph fails once too often": {e(inference.Internal, inference.ReasonRuntime, nil), storage.Item{Attempts: 2}, "dead INTERNAL runtime"},
		"its own number of attempts":     {e(inference.Internal, inference.ReasonRuntime, nil), storage.Item{Attempts: 2, MaxAttempts: 5}, "attempt 3s"},
		"one attempt":                    {e(inference.Internal, inference.ReasonRuntime, nil), storage.Item{MaxAttempts: 1}, "dead INTERNAL runtime"},
		"out of memory in the graph":     {e(inference.ResourceExhausted, inference.ReasonRuntime, nil), storage.Item{}, "attempt 750ms"},
	} {
		t.Run(name, func(t *testing.T) {
			v := judge(c.err, &c.it, set, time.Minute, 0.5)
			var got string
			switch {
			case v.outcome != nil:
				got = fmt.Sprintf("%v %v %s", v.outcome.State, inference.Code(v.outcome.Code), v.outcome.Reason)
				if !strings.Contains(v.outcome.Error, c.err.Msg) || v.outcome.Version != 3 {
					t.Errorf("outcome %+v does not say why, or of which version", v.outcome)
				}
			case v.back.Attempt:
				got = fmt.Sprintf("attempt %v", v.back.Delay)
			case v.back.Death:
				got = fmt.Sprintf("death %v", v.back.Delay)
			default:
				got = fmt.Sprintf("back %v", v.back.Delay)
			}
			if v.pause > 0 {
				got += " paused"
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if v.outcome == nil && v.back.Error != c.err.Msg {
				t.Errorf("the last failure is told as %q", v.back.Error)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	set := Settings{Backoff: time.Second, MaxBackoff: 10 * time.Second}
	for n, want := range map[int][2]time.Duration{ // the least and the most
		1: {500 * time.Millisecond, time.Second}, 2: {time.Second, 2 * time.Second}, 4: {4 * time.Second, 8 * time.Second},
		5: {5 * time.Second, 10 * time.Second}, 1000: {5 * time.Second, 10 * time.Second},
	} {
		if got := [2]time.Duration{backoff(n, set, 0), backoff(n, set, 1)}; got != want {
			t.Errorf("failure %d: %v, want %v", n, got, want)
		}
	}
}
