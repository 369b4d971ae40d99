// pprof_test.go: profiles are there, for operators and nobody else.
package control

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/access"
)

func TestProfiles(t *testing.T) {
	ops, err := access.NewOperators("")
	if err != nil {
		t.Fatal(err)
	}
	h := Handler(Options{Operators: &ops, REST: http.NotFoundHandler()})
	for _, name := range []string{"", "heap", "goroutine?debug=1", "profile?seconds=1"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/control/debug/pprof/"+name, nil))
		if w.Code != http.StatusForbidden {
			t.Errorf("%q to somebody whom the kernel does not know: %d", name, w.Code)
		}
	}

	path := filepath.Join(shortDir(t), "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ConnContext: access.ConnContext}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		_ = s.Close()
		<-done
	}()
	c := client(t, path)
	for name, want := range map[string]string{"": "goroutine", "goroutine?debug=1": "control.TestProfiles", "heap?debug=1": "heap profile"} {
		status, body, err := c.Do(t.Context(), "GET", "/control/debug/pprof/"+name, nil)
		if err != nil || status != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%q: %v, %d, %.200q without %q", name, err, status, body, want)
		}
	}
	if status, _, err := c.Do(t.Context(), "GET", "/control/debug/pprof/nothing", nil); err != nil || status != http.StatusNotFound {
		t.Errorf("a profile that there is none of: %v, %d", err, status)
	}
}
