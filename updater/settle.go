// settle.go: when a folder's files have stopped changing. Functions of values only.
package updater

import "time"

// sight is what has been seen of one folder's files so far.
type sight struct {
	Print Print
	Since time.Time // when the files were first seen as they are
	// Aged says that they were found so by the first look at the model: their own times are evidence then. Later on they are not,
	// for a clock on the other side of a network mount may lag.
	Aged bool
}

// see is the sight after a look. first marks the first look at the model.
func see(before sight, now Print, at time.Time, first bool) sight {
	if before.Print.Digest == now.Digest && !before.Since.IsZero() {
		before.Print = now // the times of folders may have moved, the files have not
		return before
	}
	return sight{Print: now, Since: at, Aged: first}
}

// quiet is how long the files are known to have been as they are, at the time of the last look that saw them.
func (s sight) quiet(looked time.Time) time.Duration {
	d := looked.Sub(s.Since)
	if s.Aged {
		d = max(d, looked.Sub(s.Print.Newest))
	}
	return d
}

// settled reports whether the last look found what may be tried, and if not, how long after it to look again.
func (s sight) settled(looked time.Time, settle time.Duration) (bool, time.Duration) {
	if s.Print.Renamed {
		return true, 0
	}
	if q := s.quiet(looked); q < settle {
		return false, settle - q
	}
	return true, 0
}
