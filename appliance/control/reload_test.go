// reload_test.go: the reload verb over a real socket.
package control

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestReload(t *testing.T) {
	answer, asked := Reloaded{Changes: []Change{{Key: "log.level", From: "info", To: "debug", Effect: "now"}}}, ""
	path := door(t, Options{Reload: func(_ context.Context, by string) Reloaded { asked = by; return answer }})
	c := client(t, path)
	got, err := c.Reload(t.Context())
	if err != nil || !reflect.DeepEqual(*got, answer) || !strings.HasPrefix(asked, "inferd reload by ") {
		t.Errorf("%+v, %v, asked by %q", got, err, asked)
	}
	answer = Reloaded{Changes: []Change{}, Faults: []string{"a", "b"}}
	if got, err = c.Reload(t.Context()); err != nil || !reflect.DeepEqual(*got, answer) {
		t.Errorf("refused: %+v, %v", got, err)
	}
	if code, _, err := c.Do(t.Context(), http.MethodPost, "/control/reload", nil); err != nil || code != http.StatusConflict {
		t.Errorf("refused: HTTP %d, %v", code, err)
	}
	asked = ""
	if code, _, err := c.Do(t.Context(), http.MethodGet, "/control/reload", nil); err != nil || code == http.StatusOK || asked != "" {
		t.Errorf("GET answers %d, %v, asked by %q", code, err, asked)
	}
	if _, err := client(t, door(t, Options{})).Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "control socket only") {
		t.Errorf("where there is no such verb: %v", err)
	}
}
