// rollout_test.go: what health and the updater are told of rollouts.
package appliance

import (
	"reflect"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/updater"
)

func TestTrialConditions(t *testing.T) {
	got := trialConditions(updater.ModelStatus{Name: "m", Alarm: "it is bad", Versions: []updater.VersionStatus{
		{Number: 3, State: updater.StateQuarantined, Code: inference.ResourceExhausted, Reason: "refused"},
		{Number: 2, State: updater.StateSeen, Code: inference.ResourceExhausted, Reason: "no room"},
		{Number: 1, State: updater.StateSeen, Code: inference.ResourceExhausted, Reason: "no room either"},
	}})
	want := []health.Condition{
		{Code: health.CodeTrial, Model: "m", Severity: health.Warning, Message: "it is bad"},
		{Code: health.CodeMemory, Model: "m", Severity: health.Warning, Message: "no room"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := trialConditions(updater.ModelStatus{Name: "m", Trial: &updater.TrialStatus{}}); got != nil {
		t.Errorf("a trial alone is a condition: %+v", got)
	}
}

func TestRolloutSettings(t *testing.T) {
	var m updater.Model
	c := config.Model{ModelOptions: config.Default().Defaults}
	rollout(&m, c)
	if len(m.Rollout.Steps) != 0 || m.Probation.Time != time.Minute || m.Probation.Memory != 64<<20 || m.Transition != updater.Auto || m.Rollout.KeyHeader != inference.DefaultKeyHeader {
		t.Errorf("default: %+v", m)
	}
	c.Rollout.Strategy, c.Transition = config.Canary, config.ResourcePreserving
	rollout(&m, c)
	if !reflect.DeepEqual(m.Rollout.Steps, []float64{0.1}) || m.Transition != updater.ResourcePreserving {
		t.Errorf("canary: %+v", m)
	}
	c.Rollout.Steps = []float64{0.5, 1}
	rollout(&m, c)
	if !reflect.DeepEqual(m.Rollout.Steps, []float64{0.5, 1}) {
		t.Errorf("steps: %+v", m)
	}
	theirs, _, err := config.ParseTFServing([]string{"--model_name=m", "--model_base_path=/m"})
	if err != nil {
		t.Fatal(err)
	}
	rollout(&m, theirs.Models[0])
	if m.Probation.Time != 0 || m.Transition != updater.Beside {
		t.Errorf("behind TensorFlow Serving's command line: %+v", m)
	}
}
