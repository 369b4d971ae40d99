// tally.go: counts and times of one step.
package loadgen

import (
	"math"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Why a request failed: there was no answer of the server to read.
const (
	FailedConnect  = "connect"  // no connection
	FailedReset    = "reset"    // the connection broke before the answer was whole
	FailedTimeout  = "timeout"  // no answer while the client waited
	FailedProtocol = "protocol" // the answer was none of the protocol
)

type kind int8

const (
	answered kind = iota + 1
	refused
	failed
)

// lateReason is the reason of a refusal of what was let in: the deadline passed while it waited or ran.
const lateReason = "late"

// outcome is what became of one request; reason is of a refusal or failure.
type outcome struct {
	kind   kind
	reason string
}

// Times are percentiles in milliseconds.
type Times struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p99_9_ms"`
	Max   float64 `json:"max_ms"`
}

// longest is what a histogram can hold, in microseconds; longer times count as it.
const longest = int64(time.Hour / time.Microsecond)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, 3) }

func times(h *hdrhistogram.Histogram) Times {
	at := func(p float64) float64 { return millis(h.ValueAtQuantile(p)) }
	return Times{Count: h.TotalCount(), Mean: math.Round(h.Mean()) / 1000, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: millis(h.Max())}
}

func millis(us int64) float64 { return float64(us) / 1000 }

// tally is filled by all callers of a step.
type tally struct {
	deadline time.Duration

	mu                           sync.Mutex
	latency, service, refusal    *hdrhistogram.Histogram // guarded by mu, as all below
	sent, answered, good, late   int64
	refusedBy, failedBy          map[string]int64
	refused, failed, held        int64
	lateServed                   int64
	lateMost                     time.Duration
	warm, inFlight, mostInFlight int64
	open                         int64 // of those sent and counted
	frozen                       bool  // what ends now was ended by us
}

func newTally(deadline time.Duration) *tally {
	return &tally{deadline: deadline, latency: newHistogram(), service: newHistogram(), refusal: newHistogram(),
		refusedBy: map[string]int64{}, failedBy: map[string]int64{}}
}

// lateness is how much after its due time a request is sent late. Below it is what a busy machine's timers do.
const lateness = 5 * time.Millisecond

// begin counts a request that is being sent; held says that it had to wait for a place among those in flight.
func (t *tally) begin(due, sent time.Time, measured, held bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight++
	t.mostInFlight = max(t.mostInFlight, t.inFlight)
	if !measured {
		t.warm++
		return
	}
	t.sent++
	t.open++
	if held {
		t.held++
	}
	if by := sent.Sub(due); by > lateness {
		t.late++
		t.lateMost = max(t.lateMost, by)
	}
}

// end counts what came of it.
func (t *tally) end(due, sent, done time.Time, measured bool, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	if !measured || t.frozen {
		return
	}
	t.open--
	switch o.kind {
	case answered:
		t.answered++
		record(t.latency, done.Sub(due))
		record(t.service, done.Sub(sent))
		if t.deadline == 0 || done.Sub(due) <= t.deadline {
			t.good++
		}
		if t.deadline > 0 && done.Sub(sent) > t.deadline {
			t.lateServed++
		}
	case refused:
		t.refused++
		t.refusedBy[o.reason]++
		record(t.refusal, done.Sub(sent))
	default:
		t.failed++
		t.failedBy[o.reason]++
	}
}

// freeze leaves what is open now open.
func (t *tally) freeze() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.frozen = true
}

func (t *tally) progress(p *Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.Sent, p.Good, p.Refused, p.Failed, p.In = t.sent, t.good, t.refused, t.failed, t.inFlight
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 0), longest)) // within its bounds
}
