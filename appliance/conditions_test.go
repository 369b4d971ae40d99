// conditions_test.go: what health says of paths that are polled, once for each.
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
