// measures.go: what was counted of a version, as values that can be subtracted, kept over a restart and compared.
package updater

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Measured is a servable that counts what it answers. One that does not is never on probation.
type Measured interface {
	// Measure has everything since the servable was made. It may read what the kernel knows of the worker, which takes a moment.
	Measure() Measures
	// Watch has the answers looked at more closely, or not.
	Watch(on bool)
}

// Measures are counts since a version's servable was made, or the difference of two of these.
type Measures struct {
	Requests int64  `json:"requests"` // that the version itself answered, well or badly
	Failed   int64  `json:"failed,omitempty"`
	Refused  int64  `json:"refused,omitempty"` // the graph found the input wrong
	Checked  int64  `json:"checked,omitempty"` // answers that were looked through
	NaN      int64  `json:"nan,omitempty"`     // of these: had NaN or infinity
	Runs     []Runs `json:"runs,omitempty"`    // in order of signature, class and bucket

	Deaths    int    `json:"deaths,omitempty"`     // of the worker
	LastDeath string `json:"last_death,omitempty"` // why
	Memory    int64  `json:"memory,omitempty"`     // bytes that the worker uses now; 0: not known
}

// Runs are runs of a signature, with a power of two of rows and a quarter of an octave of time in common.
type Runs struct {
	Signature string `json:"s"`
	Class     int    `json:"c"`
	Bucket    int    `json:"b"`
	Count     int64  `json:"n"`
}

func (r Runs) compare(o Runs) int {
	return cmp.Or(cmp.Compare(r.Signature, o.Signature), cmp.Compare(r.Class, o.Class), cmp.Compare(r.Bucket, o.Bucket))
}

func sortRuns(runs []Runs) { slices.SortFunc(runs, Runs.compare) }

// since is what has come to m after before.
func (m Measures) since(before Measures) Measures {
	m.Requests -= before.Requests
	m.Failed -= before.Failed
	m.Refused -= before.Refused
	m.Checked -= before.Checked
	m.NaN -= before.NaN
	m.Deaths -= before.Deaths
	var runs []Runs
	for _, r := range m.Runs {
		if i, ok := slices.BinarySearchFunc(before.Runs, r, Runs.compare); ok {
			r.Count -= before.Runs[i].Count
		}
		if r.Count > 0 {
			runs = append(runs, r)
		}
	}
	m.Runs = runs
	return m
}

// timing is what the run times of one kind of run look like.
type timing struct {
	count     int64
	median    time.Duration
	mean, dev float64 // of the binary logarithm of the time in microseconds
}

// kind is what makes runs comparable.
type kind struct {
	signature string
	class     int
}

// timings are the run times by kind.
func (m Measures) timings() map[kind]timing {
	out := make(map[kind]timing)
	for i := 0; i < len(m.Runs); {
		k := kind{m.Runs[i].Signature, m.Runs[i].Class}
		j := i
		for j < len(m.Runs) && (kind{m.Runs[j].Signature, m.Runs[j].Class}) == k {
			j++
		}
		out[k] = timingOf(m.Runs[i:j])
		i = j
	}
	return out
}

func timingOf(runs []Runs) (t timing) {
	var sum, squares float64
	for _, r := range runs {
		x, n := (float64(r.Bucket)+0.5)/perOctave, float64(r.Count)
		t.count += r.Count
		sum, squares = sum+n*x, squares+n*x*x
	}
	if t.count == 0 {
		return t
	}
	n := float64(t.count)
	t.mean = sum / n
	t.dev = math.Sqrt(max(0, squares/n-t.mean*t.mean) + 1.0/(12*perOctave*perOctave)) // the width of a bucket is uncertainty too
	half := n / 2
	for _, r := range runs {
		if half -= float64(r.Count); half <= 0 {
			within := 1 + half/float64(r.Count) // of the bucket, as if its runs lay evenly in it
			us := math.Exp2((float64(r.Bucket) + within) / perOctave)
			t.median = time.Duration(us * float64(time.Microsecond))
			break
		}
	}
	return t
}

// median is the median run time over all kinds, for the status.
func (m Measures) median() time.Duration {
	var all []Runs
	for _, r := range m.Runs {
		all = append(all, Runs{Bucket: r.Bucket, Count: r.Count})
	}
	sortRuns(all)
	return timingOf(all).median
}
