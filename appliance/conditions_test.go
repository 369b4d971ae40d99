// conditions_test.go: what health says of a model, and what it leaves out.
package appliance

import (
	"slices"
	"testing"

	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/updater"
)

func TestPolledIsSaidOnce(t *testing.T) {
	found, named := updater.ModelStatus{Name: "found", Polled: "/m/found lies on NFS"}, updater.ModelStatus{Name: "named", Polled: "/x lies on NFS", Configured: true}
	for _, test := range []struct {
		status updater.Status
		want   []string // models that a condition is about, "" for the appliance
	}{
		{updater.Status{Models: []updater.ModelStatus{{Name: "m"}}}, nil},
		{updater.Status{Polled: "/m lies on NFS", Models: []updater.ModelStatus{found, named}}, []string{"", "named"}},
		{updater.Status{Models: []updater.ModelStatus{found, named}}, []string{"found", "named"}}, // a link out of the models directory
		{updater.Status{Watch: "no inotify", Polled: "/m lies on NFS"}, []string{""}},
	} {
		var got []string
		for _, c := range conditions(test.status) {
			if c.Code == health.CodeWatch && c.Severity == health.Info {
				got = append(got, c.Model)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%+v: conditions of %q, want %q", test.status, got, test.want)
		}
	}
}

func TestHeldLabelsOfARemovedModel(t *testing.T) {
	m := updater.ModelStatus{Name: "m", Held: []string{"stable"}}
	if got := conditions(updater.Status{Models: []updater.ModelStatus{m}}); len(got) != 1 || got[0].Code != health.CodeLabels {
		t.Errorf("held labels: %+v", got)
	}
	m.Removed = true
	if got := conditions(updater.Status{Models: []updater.ModelStatus{m}}); len(got) != 0 {
		t.Errorf("held labels of a model that was removed: %+v", got)
	}
}

// Where nothing else is to be said, how far the highest version is.
func TestReason(t *testing.T) {
	for _, test := range []struct {
		model updater.ModelStatus
		want  string
	}{
		{updater.ModelStatus{Name: "m"}, ""},
		{updater.ModelStatus{Name: "m", Versions: []updater.VersionStatus{{Number: 2, State: updater.StateWarming}, {Number: 1, State: updater.StateSeen}}}, "version 2 is warming"},
		{updater.ModelStatus{Name: "m", Versions: []updater.VersionStatus{{Number: 2, State: updater.StateWarming}, {Number: 1, Reason: "why"}}}, "version 1: why"},
		{updater.ModelStatus{Name: "m", Problem: "gone", Versions: []updater.VersionStatus{{Number: 1, Reason: "why"}}}, "gone"},
	} {
		if got := reason(test.model); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
