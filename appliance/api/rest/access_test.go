// access_test.go: asking costs nothing where nobody is asked, and every act needs a scope.
package rest

import (
	"net/http/httptest"
	"testing"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
)

func TestNobodyIsAsked(t *testing.T) {
	h, s := &handler{}, new(scratch)
	r := httptest.NewRequest("POST", "/v1/models/m:predict", nil)
	to := route{act: actPredict, spec: inference.Spec{Model: "m"}}
	allocs := testing.AllocsPerRun(100, func() {
		if h.enter(s, r, &to) != nil || to.grant != nil || s.unread {
			t.Error("somebody was asked")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestEveryActNeedsAScope(t *testing.T) {
	for act, want := range map[string]access.Scope{
		actPredict: access.Predict, actClassify: access.Predict, actRegress: access.Predict, actSubmit: access.Submit, actJob: access.Submit, actResult: access.Submit,
		actCancel: access.Submit, actRetry: access.Submit, actForget: access.Submit, actList: access.Predict | access.Submit, actStatus: access.Predict | access.Submit,
		actMetadata: access.Predict | access.Submit, actHistory: access.Predict | access.Submit,
	} {
		if got := needs(act); got != want {
			t.Errorf("%s needs %v, want %v", act, got, want)
		}
	}
}
