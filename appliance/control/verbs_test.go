// verbs_test.go: the operators' verbs over a real socket, and that the socket tells who asked.
package control

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/updater"
)

// scripted answers with what it was asked.
type scripted struct{}

func (scripted) Rollback(_ context.Context, model, by string) (string, error) {
	if model == "none" {
		return "", inference.Errorf(inference.NotFound, inference.ReasonModel, "no model is called none")
	}
	return "rollback " + model + " " + by, nil
}

func (scripted) Promote(_ context.Context, model, by string) (string, error) {
	return "promote " + model + " " + by, nil
}

func (scripted) Pin(_ context.Context, model string, version int64, by string) (string, error) {
	return "pin " + model + " " + strconv.FormatInt(version, 10) + " " + by, nil
}

func (scripted) Unload(_ context.Context, model, by string) (string, error) {
	return "unload " + model + " " + by, nil
}

func (scripted) Load(ctx context.Context, model, _ string) (string, error) {
	_, bounded := ctx.Deadline()
	return fmt.Sprintf("load %s %v", model, bounded), nil
}

func (scripted) Unpin(context.Context, string, string) (string, error) {
	return "", inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "it is not pinned")
}

func (scripted) Retry(_ context.Context, model string, version int64, _ string) (string, error) {
	return "retry " + model + " " + strconv.FormatInt(version, 10), nil
}

func (scripted) Label(_ context.Context, model, label string, version int64, force bool, by string) (string, error) {
	if label == "" {
		return "", inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "a label is not empty")
	}
	return fmt.Sprintf("label %s %s %d %v %s", model, label, version, force, by), nil
}

func (scripted) Unlabel(_ context.Context, model, label, by string) (string, error) {
	return "unlabel " + model + " " + label + " " + by, nil
}

func (scripted) History(model string, limit int) ([]updater.Event, error) {
	return []updater.Event{{At: time.Unix(1, 0), What: "good", Version: int64(limit), Reason: model}}, nil
}

func TestVerbs(t *testing.T) {
	path := filepath.Join(shortDir(t), "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: Handler(Options{Verbs: scripted{}, REST: http.NotFoundHandler()}), ConnContext: access.ConnContext}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		_ = s.Close()
		<-done
	}()
	c := client(t, path)
	me := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		me = u.Username
	}
	for _, test := range []struct {
		verb, model string
		want        string // with "error: " before an error
	}{
		{"rollback", "a/b c", "rollback a/b c " + me}, {"rollback", "none", "error: no model is called none"}, {"pin", "m", "pin m 7 " + me},
		{"unpin", "m", "error: it is not pinned"}, {"retry", "m", "retry m 7"},
		{"unload", "m", "unload m " + me}, {"load", "m", "load m false"}, {"drain", "m", "error: "},
	} {
		got, err := c.Verb(t.Context(), test.verb, test.model, 7)
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != test.want && (test.verb != "drain" || !strings.HasPrefix(got, test.want)) {
			t.Errorf("%s %s: %s, want %s", test.verb, test.model, got, test.want)
		}
	}
	for want, ask := range map[string]func() (string, error){
		"label a&b s=t 7 true " + me:   func() (string, error) { return c.Label(t.Context(), "a&b", "s=t", 7, true) },
		"label m stable 7 false " + me: func() (string, error) { return c.Label(t.Context(), "m", "stable", 7, false) },
		"unlabel m stable " + me:       func() (string, error) { return c.Unlabel(t.Context(), "m", "stable") },
		"error: a label is not empty":  func() (string, error) { return c.Label(t.Context(), "m", "", 7, false) },
	} {
		got, err := ask()
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	events, err := c.History(t.Context(), "m", 3)
	if err != nil || len(events) != 1 || events[0].Version != 3 || events[0].Reason != "m" || events[0].What != "good" {
		t.Fatalf("%+v %v", events, err)
	}
	if code, _, err := c.Do(t.Context(), http.MethodPost, "/control/pin?model=m&version=x", nil); err != nil || code != http.StatusBadRequest {
		t.Fatalf("HTTP %d %v", code, err)
	}
}
