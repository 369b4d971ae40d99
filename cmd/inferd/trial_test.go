// trial_test.go: a trial in words.
package main

import (
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/control"
)

func TestTrialText(t *testing.T) {
	since := time.Now().Add(-12 * time.Second)
	got := trialText("m", &control.Trial{
		Version: 4, Against: 3, Since: since, Ends: since.Add(time.Minute), Requests: 1000, Share: 0.05, Step: 1, Steps: 3,
		New: control.TrialCounts{Requests: 50, Failed: 1, Checked: 49, NaN: 2, Deaths: 1, RunMillis: 12.5, MemoryBytes: 20e6},
	})
	for _, want := range []string{
		"m: version 4 is on probation against version 3 for 12s of 1m0s or 1000 requests, with 5% of the requests (step 1 of 3); that one is not loaded",
		"\n  version 4: 50 requests, 1 failed, 0 refused, NaN in 2 of 49, 1 deaths, runs of 12.5 ms, 20.0 MB resident\n",
		"\n  version 3: 0 requests, 0 failed, 0 refused, NaN in 0 of 0, 0 deaths",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
