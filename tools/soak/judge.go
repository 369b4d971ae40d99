// judge.go: what flat means.
package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// A holding is flat when over the last two thirds of the time, the first being for what warms up, its trend, carried over those two thirds, is
// growth of no more than share of its median and spare on top. The trend is the median of the slopes between all pairs of samples (Theil and
// Sen's), which a swap in the moment of a sample does not move. The bounds do not grow with the time, so a longer run finds a smaller leak:
// 30 minutes find 0.6 MB a minute, three days 0.3 MB an hour.
type holding struct {
	name         string
	of           func(sample) float64
	share, spare float64
	unit         float64 // that it is printed in
	word         string
}

var holdings = []holding{
	{"memory of all processes", func(s sample) float64 { return s.memory }, 0.05, 8e6, 1e6, "MB"},
	{"memory of the core", func(s sample) float64 { return s.core }, 0.05, 4e6, 1e6, "MB"},
	{"descriptors", func(s sample) float64 { return s.descriptors }, 0, 4, 1, ""},
	{"shared mappings", func(s sample) float64 { return s.memfiles }, 0, 8, 1, ""},
	{"threads", func(s sample) float64 { return s.threads }, 0, 8, 1, ""},
	{"processes", func(s sample) float64 { return s.processes }, 0, 0.5, 1, ""},
	{"disk", func(s sample) float64 { return s.disk }, 0.05, 4e6, 1e6, "MB"},
}

// judge prints each holding's trend, and fails on those that grow.
func judge(w io.Writer, all []sample) error {
	late := all[len(all)/3:]
	if len(late) < 10 {
		return fmt.Errorf("%d samples are too few to say anything", len(all))
	}
	var faults error
	for _, h := range holdings {
		middle, growth := trend(late, h.of)
		most := h.share*middle + h.spare
		verdict := "flat"
		if growth > most {
			verdict = "GROWS"
			faults = errors.Join(faults, fmt.Errorf("%s grows: by %.1f %s in the last %v, at most %.1f is called flat", h.name, growth/h.unit, h.word, (late[len(late)-1].at-late[0].at).Round(1e9), most/h.unit))
		}
		_, _ = fmt.Fprintf(w, "soak: %-24s median %8.1f %-2s, %+8.2f over the last two thirds (at most %.1f): %s\n", h.name, middle/h.unit, h.word, growth/h.unit, most/h.unit, verdict)
	}
	return faults
}

// trend is the median and the growth over the whole of the samples.
func trend(all []sample, of func(sample) float64) (middle, growth float64) {
	var values, slopes []float64
	for i, a := range all {
		values = append(values, of(a))
		for _, b := range all[i+1:] {
			slopes = append(slopes, (of(b)-of(a))/float64(b.at-a.at))
		}
	}
	return median(values), median(slopes) * float64(all[len(all)-1].at-all[0].at)
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
