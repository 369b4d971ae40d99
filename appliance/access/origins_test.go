// origins_test.go: what a browser asks beforehand and reads afterwards, for pages that are welcome and for others.
package access

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOrigins(t *testing.T) {
	const there = "https://app.example.org"
	for _, c := range []struct {
		name, list, origin, method string
		headers                    []string
		status                     int
		allowed                    string // Access-Control-Allow-Origin
		reached                    bool
	}{
		{"no page", there, "", "POST", nil, 200, "", true},
		{"the server's own page", there, "http://box:8501", "POST", nil, 200, "", true},
		{"a page of the list", there, there, "POST", nil, 200, there, true},
		{"in other letters", there, "HTTPS://App.example.org", "POST", nil, 200, "HTTPS://App.example.org", true},
		{"of another host", there, "https://evil.example.org", "POST", nil, 403, "", false},
		{"of another scheme", there, "http://app.example.org", "POST", nil, 403, "", false},
		{"of another port", there, there + ":8443", "POST", nil, 403, "", false},
		{"a page from a file", there, "null", "POST", nil, 403, "", false},
		{"a page from a file, welcome", there + " null", "null", "POST", nil, 200, "null", true},
		{"any page", "*", "https://evil.example.org", "POST", nil, 200, "*", true},
		{"asked beforehand", there, there, "OPTIONS", []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-grpc-web"}, 204, there, false},
		{"asked beforehand by another", there, "https://evil.example.org", "OPTIONS", []string{"Access-Control-Request-Method", "POST"}, 403, "", false},
		{"asked beforehand by any", "*", there, "OPTIONS", []string{"Access-Control-Request-Method", "POST"}, 204, "*", false},
		{"OPTIONS that asks nothing", there, there, "OPTIONS", nil, 200, there, true},
		{"no list: no page", "", "", "POST", nil, 200, "", true},
		{"no list: a page", "", there, "POST", nil, 200, "", true}, // as before there was one: its browser keeps the answer from it
	} {
		t.Run(c.name, func(t *testing.T) {
			reached := false
			h := NewOrigins(strings.Fields(c.list)).Front(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reached = true }))
			r := httptest.NewRequestWithContext(t.Context(), c.method, "http://box:8501/v1/models", nil)
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			for i := 0; i+1 < len(c.headers); i += 2 {
				r.Header.Set(c.headers[i], c.headers[i+1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			resp := w.Result()
			if resp.StatusCode != c.status || reached != c.reached || resp.Header.Get("Access-Control-Allow-Origin") != c.allowed {
				t.Errorf("%d, reached %v, %v", resp.StatusCode, reached, resp.Header)
			}
			if vary := resp.Header.Get("Vary"); (vary == "Origin") != (c.list != "" && c.list != "*") {
				t.Errorf("Vary %q", vary)
			}
			if resp.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("cookies are let in")
			}
			switch {
			case c.status == 204:
				if asked := r.Header.Get("Access-Control-Request-Headers"); resp.Header.Get("Access-Control-Allow-Headers") != asked || !strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "POST") {
					t.Errorf("%v", resp.Header)
				}
			case c.status == 403:
				var e struct{ Error string }
				if body, _ := io.ReadAll(resp.Body); json.Unmarshal(body, &e) != nil || !strings.Contains(e.Error, "list it under rest.origins") {
					t.Errorf("%s", body)
				}
			case c.allowed != "":
				if !strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), "Grpc-Status") {
					t.Errorf("%v", resp.Header)
				}
			}
		})
	}
}

func TestWelcome(t *testing.T) {
	for _, c := range []struct {
		list, origin string
		want         bool
	}{{"", "", true}, {"", "http://box:8501", true}, {"", "http://box:8502", false}, {"", "null", false}, {"null", "null", true}, {"*", "https://x", true}} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "http://box:8501/", nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if got := NewOrigins(strings.Fields(c.list)).Welcome(r); got != c.want {
			t.Errorf("%q of %q: %v", c.origin, c.list, got)
		}
	}
}

// TestTurnedAwayInWords: what another's page has chosen to call itself does not get out of the answer's quotes.
func TestTurnedAwayInWords(t *testing.T) {
	for _, origin := range []string{`https://"x`, "https://\x01\xff", strings.Repeat("o", 1<<12), `\u0022}`} {
		w := httptest.NewRecorder()
		TurnAway(w, origin)
		var e struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || len(e.Error) > 300 {
			t.Errorf("%q: %v, %s", origin, err, w.Body)
		}
	}
}
