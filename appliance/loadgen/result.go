// result.go: what is told of a run: the keys of `inferd bench -o json`.
package loadgen

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is a run of the generator. Its keys stay as they are; new ones may come.
type Result struct {
	Target    string    `json:"target"` // host:port
	Model     string    `json:"model"`
	Protocol  string    `json:"protocol"`
	TLS       bool      `json:"tls"`
	Time      time.Time `json:"time"`
	Arrivals  string    `json:"arrivals"`    // fixed, poisson or closed
	Deadline  float64   `json:"deadline_ms"` // 0: none, and then every answer is good
	Rows      int64     `json:"rows"`        // 0: from a file
	BodyBytes int       `json:"body_bytes"`
	Clients   int       `json:"clients"`
	InFlight  int       `json:"max_in_flight"`
	Steps     []Step    `json:"steps"`
	// Interrupted: the run was ended before its time; the steps are what there is.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Step is one rate, or one count of callers. Counts are of the requests that were due within Seconds.
type Step struct {
	Rate    float64 `json:"rate,omitempty"`    // requests per second that were to be offered; of an open loop
	Callers int     `json:"callers,omitempty"` // of a closed loop
	Seconds float64 `json:"seconds"`

	Offered  int64 `json:"offered"` // due
	Sent     int64 `json:"sent"`
	Answered int64 `json:"answered"`
	Good     int64 `json:"good"` // answered within the deadline, counted from the due time
	Refused  int64 `json:"refused"`
	Failed   int64 `json:"failed"`
	Open     int64 `json:"open"` // sent, and nothing came before the run was ended

	RefusedBy map[string]int64 `json:"refused_by"` // inferd's reason, else HTTP 503 or the gRPC code; late for HTTP 504
	FailedBy  map[string]int64 `json:"failed_by"`  // connect, reset, timeout, protocol

	OfferedRate  float64 `json:"offered_rate"`
	AnsweredRate float64 `json:"answered_rate"`
	Goodput      float64 `json:"goodput"` // good per second

	Latency Times `json:"latency"` // of answers, from the due time
	Service Times `json:"service"` // of answers, from the time of sending
	Refusal Times `json:"refusal"` // of refusals, from the time of sending

	LateServed   int64   `json:"late_served"` // answered after the deadline, counted from when they were sent
	LateSends    int64   `json:"late_sends"`  // more than 5 ms after they were due
	LateMost     float64 `json:"late_max_ms"` // the latest of them
	Held         int64   `json:"held"`        // waited for one of max_in_flight to end
	Connections  int64   `json:"connections"` // opened during the step, its warm-up included
	MostInFlight int64   `json:"most_in_flight"`
	// GeneratorLate: more than 1 in 100 was sent late or not at all, so the latencies are partly the generator's own.
	GeneratorLate bool `json:"generator_late"`
}

// step closes the account.
func (t *tally) step(offered int64, measured time.Duration) Step {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Step{Seconds: measured.Seconds(), Offered: offered, Sent: t.sent, Answered: t.answered, Good: t.good, Refused: t.refused, Failed: t.failed, Open: t.open,
		RefusedBy: maps.Clone(t.refusedBy), FailedBy: maps.Clone(t.failedBy), Latency: times(t.latency), Service: times(t.service), Refusal: times(t.refusal),
		LateServed: t.lateServed, LateSends: t.late, LateMost: float64(t.lateMost.Microseconds()) / 1000, Held: t.held, MostInFlight: t.mostInFlight}
	if s.Seconds > 0 {
		s.OfferedRate, s.AnsweredRate, s.Goodput = float64(offered)/s.Seconds, float64(t.answered)/s.Seconds, float64(t.good)/s.Seconds
	}
	s.GeneratorLate = (s.LateSends+s.Offered-s.Sent)*100 > s.Offered
	return s
}

// Table prints the result for people.
func (r *Result) Table(w io.Writer) {
	fmt.Fprintf(w, "%s at %s over %s", clean(r.Model), r.Target, r.Protocol)
	if r.TLS {
		fmt.Fprint(w, " with TLS")
	}
	fmt.Fprintf(w, ", bodies of %d bytes", r.BodyBytes)
	if r.Rows > 0 {
		fmt.Fprintf(w, " (%d rows)", r.Rows)
	}
	if r.Deadline > 0 {
		fmt.Fprintf(w, ", deadline %s ms", short(r.Deadline))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	head := "RATE"
	if r.Arrivals == closedLoop {
		head = "CALLERS"
	}
	fmt.Fprintf(t, "%s\tOFFERED/S\tSENT\tANSWERED\tGOOD/S\tREFUSED\tFAILED\tP50 MS\tP90\tP99\tP99.9\tMAX\tSERVICE P50\tP99\t\n", head)
	for _, s := range r.Steps {
		what := short(s.Rate)
		if r.Arrivals == closedLoop {
			what = strconv.Itoa(s.Callers)
		}
		if s.GeneratorLate {
			what += "*"
		}
		l := s.Latency
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", what, short(s.OfferedRate), s.Sent, s.Answered, short(s.Goodput), s.Refused, s.Failed,
			l.cell(l.P50), l.cell(l.P90), l.cell(l.P99), l.cell(l.P999), l.cell(l.Max), s.Service.cell(s.Service.P50), s.Service.cell(s.Service.P99))
	}
	_ = t.Flush() // the terminal is gone when this fails
	for _, s := range r.Steps {
		what := "at " + short(s.Rate) + "/s: "
		if r.Arrivals == closedLoop {
			what = fmt.Sprintf("with %d callers: ", s.Callers)
		}
		if s.Refused > 0 {
			fmt.Fprintf(w, "%srefused by reason: %s (p50 %s ms, p99 %s ms)\n", what, counts(s.RefusedBy), short(s.Refusal.P50), short(s.Refusal.P99))
		}
		if s.Failed > 0 {
			fmt.Fprintf(w, "%sfailed: %s\n", what, counts(s.FailedBy))
		}
		if s.Open > 0 {
			fmt.Fprintf(w, "%s%d had no answer yet\n", what, s.Open)
		}
		if s.GeneratorLate {
			fmt.Fprintf(w, "* %sthe generator was late: %d of %d requests were sent more than %v after they were due (at most %s ms), %d not at all; %s\n",
				what, s.LateSends, s.Offered, lateness, short(s.LateMost), s.Offered-s.Sent, s.blame())
		}
	}
	if r.Interrupted {
		fmt.Fprintln(w, "interrupted: this is what there was until then")
	}
}

// cell is one of the times, or - when there are none.
func (t Times) cell(v float64) string {
	if t.Count == 0 {
		return "-"
	}
	return short(v)
}

// blame is what held the generator back, and what to do.
func (s Step) blame() string {
	if s.Held > 0 {
		return fmt.Sprintf("%d waited for one of those in flight to end (--in-flight raises their number)", s.Held)
	}
	return "it had too little processor time (give it a core of its own with --cpus, or another machine)"
}

// counts is "deadline 3, queue_full 17".
func counts(by map[string]int64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%s %d", clean(k), by[k]))
	}
	return strings.Join(parts, ", ")
}

// short has three digits, or all of them before the point.
func short(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// clean takes out what would move a terminal's cursor.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}
