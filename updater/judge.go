// judge.go: whether a version on probation is worse than the one it shall replace. A function of values.
package updater

import (
	"fmt"
	"math"
	"time"
)

// Probation is how long a new version is watched after it went live, and what it must not do meanwhile. A version is compared with the
// one that it replaces: what that one does too is no breach.
type Probation struct {
	Time     time.Duration // 0: none
	Requests int64         // ends it earlier, when it answered so many; 0: does not
	Errors   float64       // failed, or refused by the graph, more often than the other by so much (0.01: one in a hundred); 1: never a breach
	NaN      float64       // NaN or infinity in an answer more often than in the other's by so much; 1: never a breach
	Latency  float64       // runs that take so many times as long; 0: never a breach
	Memory   int64         // bytes that its worker gains and goes on gaining; 0: never a breach
	Deaths   int           // of its worker, when the other's died less; 0: never a breach
}

const (
	// sigmas is how sure a verdict must be. A trial is looked at many times, so the chance of one look is not that of the trial.
	sigmas = 3
	// leastBad is how many answers must be bad before any rate of them means something.
	leastBad = 3
	// credit is how many requests a version that serves is taken to have answered well beyond those that were counted.
	credit = 30
	// leastRuns of a kind, on both sides, before their times are compared; leastSlower is a difference that is not the machine's mood.
	leastRuns   = 20
	leastSlower = time.Millisecond
	// leastLooks are made at a version before a number of requests, which may come all at once, ends its trial.
	leastLooks = 5
	// leastGained is how many requests must lie between the memory measured first and last.
	leastGained = 30
)

// evidence is what a trial, or a step of one, has brought so far.
type evidence struct {
	Against  int64    // the number of the old version
	New, Old Measures // of this trial; Old, where it gets no requests meanwhile, from before it
	Took     time.Duration
	Looks    int
	Memory   []memoryPoint // of the new version's worker, oldest first
	OldGain  float64       // bytes per request that the old one's worker gained, in its time
}

// memoryPoint is the memory of a worker when it had answered so many requests.
type memoryPoint struct{ Requests, Bytes int64 }

// judge says what speaks against the new version, empty when nothing does, and whether the trial is over.
func judge(e evidence, p Probation) (breach string, done bool) {
	for _, ask := range []func(evidence, Probation) string{deadlier, odder, failsMore, refusesMore, slower, gains} {
		if breach = ask(e, p); breach != "" {
			return breach, true
		}
	}
	return "", e.Took >= p.Time || p.Requests > 0 && e.New.Requests >= p.Requests && e.Looks >= leastLooks
}

func deadlier(e evidence, p Probation) string {
	if p.Deaths <= 0 || e.New.Deaths < p.Deaths || e.New.Deaths <= e.Old.Deaths {
		return ""
	}
	why := ""
	if e.New.LastDeath != "" {
		why = ", last: " + e.New.LastDeath
	}
	return fmt.Sprintf("its worker died %s%s; that of version %d %s", often(e.New.Deaths), why, e.Against, often(e.Old.Deaths))
}

func often(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func odder(e evidence, p Probation) string {
	if !worse(e.New.NaN, e.New.Checked, e.Old.NaN, e.Old.Checked, p.NaN) {
		return ""
	}
	return fmt.Sprintf("%d of %d answers had NaN or infinity, version %d had %d of %d", e.New.NaN, e.New.Checked, e.Against, e.Old.NaN, e.Old.Checked)
}

func failsMore(e evidence, p Probation) string {
	if !worse(e.New.Failed, e.New.Requests, e.Old.Failed, e.Old.Requests, p.Errors) {
		return ""
	}
	return fmt.Sprintf("%d of %d requests failed, version %d failed %d of %d", e.New.Failed, e.New.Requests, e.Against, e.Old.Failed, e.Old.Requests)
}

func refusesMore(e evidence, p Probation) string {
	if !worse(e.New.Refused, e.New.Requests, e.Old.Refused, e.Old.Requests, p.Errors) {
		return ""
	}
	return fmt.Sprintf("its graph refused the inputs of %d of %d requests, version %d those of %d of %d",
		e.New.Refused, e.New.Requests, e.Against, e.Old.Refused, e.Old.Requests)
}

// worse reports whether the rate bad/of is above the other by more than margin, beyond doubt: Newcombe's bound for the difference of two
// rates, which combines Wilson's bounds for each.
func worse(bad, of, otherBad, otherOf int64, margin float64) bool {
	if bad < leastBad || of <= 0 {
		return false
	}
	otherOf += credit
	p, q := float64(bad)/float64(of), float64(otherBad)/float64(otherOf)
	low, _ := wilson(p, float64(of))
	_, high := wilson(q, float64(otherOf))
	return p-q-math.Hypot(p-low, high-q) > margin
}

// wilson are the bounds of a rate p seen in n trials.
func wilson(p, n float64) (low, high float64) {
	const z = sigmas
	middle, width := p+z*z/(2*n), z*math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return (middle - width) / (1 + z*z/n), (middle + width) / (1 + z*z/n)
}

// slower compares the run times of each signature, runs with as many rows with each other: queueing, which the traffic decides, is not in
// them.
func slower(e evidence, p Probation) string {
	if p.Latency <= 0 {
		return ""
	}
	fresh, old := e.New.timings(), e.Old.timings()
	type sum struct {
		weight, mean, variance, median float64 // of binary logarithms, weighted
		count, oldCount                int64
		most                           kind // the kind with the greatest weight
		mostWeight                     float64
	}
	sums := make(map[string]*sum)
	for k, a := range fresh {
		b, ok := old[k]
		if !ok || a.count < leastRuns || b.count < leastRuns {
			continue
		}
		s := sums[k.signature]
		if s == nil {
			s = new(sum)
			sums[k.signature] = s
		}
		w := float64(min(a.count, b.count))
		s.weight += w
		s.mean += w * (a.mean - b.mean)
		s.median += w * math.Log2(float64(a.median)/float64(b.median))
		s.variance += w * w * (a.dev*a.dev/float64(a.count) + b.dev*b.dev/float64(b.count))
		s.count, s.oldCount = s.count+a.count, s.oldCount+b.count
		if w > s.mostWeight {
			s.most, s.mostWeight = k, w
		}
	}
	limit := math.Log2(p.Latency)
	for _, key := range sortedKeys(sums) {
		s := sums[key]
		a, b := fresh[s.most].median, old[s.most].median
		sure := s.mean/s.weight-sigmas*math.Sqrt(s.variance)/s.weight > limit
		if sure && s.median/s.weight > limit && a-b >= leastSlower {
			return fmt.Sprintf("runs of signature %q take %v, version %d took %v (medians; of %d and %d runs)",
				key, rounded(a), e.Against, rounded(b), s.count, s.oldCount)
		}
	}
	return ""
}

func rounded(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// gains finds a worker that gains memory with its requests and does not stop: each third of them brought its part. What an allocator takes
// at first and keeps is no leak.
func gains(e evidence, p Probation) string {
	if p.Memory <= 0 || len(e.Memory) < 4 {
		return ""
	}
	first, last := e.Memory[0], e.Memory[len(e.Memory)-1]
	gained, requests := last.Bytes-first.Bytes, last.Requests-first.Requests
	if gained < p.Memory || requests < leastGained || float64(gained) <= 2*e.OldGain*float64(requests) {
		return ""
	}
	third, from := 1, first
	for _, at := range e.Memory {
		if 3*(at.Requests-first.Requests) < int64(third)*requests {
			continue
		}
		if at.Bytes-from.Bytes < gained/6 {
			return ""
		}
		from = at
		if third++; third > 3 {
			break
		}
	}
	if third <= 3 {
		return "" // not measured often enough
	}
	text := fmt.Sprintf("its worker gained %s over %d requests and goes on gaining", megabytes(gained), requests)
	if e.OldGain*float64(requests) >= 1e6 {
		text += fmt.Sprintf(", version %d gained %s over as many", e.Against, megabytes(int64(e.OldGain*float64(requests))))
	}
	return text
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
