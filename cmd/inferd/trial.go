// trial.go: a version on probation, in words.
package main

import (
	"fmt"
	"time"

	"github.com/inferd/inferd/appliance/control"
)

// trialText is "m: version 4 is on probation against version 3 ...", with the figures so far.
func trialText(model string, t *control.Trial) string {
	text := fmt.Sprintf("%s: version %d is on probation against version %d for %s of %s", model, t.Version, t.Against, ago(t.Since), t.Ends.Sub(t.Since).Round(time.Second))
	if t.Requests > 0 {
		text += fmt.Sprintf(" or %d requests", t.Requests)
	}
	if t.Steps > 0 {
		text += fmt.Sprintf(", with %.4g%% of the requests (step %d of %d)", t.Share*100, t.Step, t.Steps)
	}
	if !t.Loaded {
		text += "; that one is not loaded"
	}
	return text + fmt.Sprintf("\n  version %d: %s\n  version %d: %s", t.Version, countsText(t.New), t.Against, countsText(t.Old))
}

func countsText(c control.TrialCounts) string {
	text := fmt.Sprintf("%d requests, %d failed, %d refused, NaN in %d of %d, %d deaths", c.Requests, c.Failed, c.Refused, c.NaN, c.Checked, c.Deaths)
	if c.RunMillis > 0 {
		text += fmt.Sprintf(", runs of %.3g ms", c.RunMillis)
	}
	if c.MemoryBytes > 0 {
		text += fmt.Sprintf(", %.1f MB resident", float64(c.MemoryBytes)/1e6)
	}
	return text
}
