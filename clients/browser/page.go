// page.go: the page as a handler, for an appliance that is asked to serve it (stream.page).

// Package browser holds the example of a browser that streams. It is one file, which works from a disk as well; docs/clients.md describes it.
package browser

import (
	_ "embed" // of the page
	"net/http"
)

//go:embed index.html
var page []byte

// Page serves the page. It needs nothing from elsewhere, and may load nothing from there.
func Page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; media-src blob: mediastream:; connect-src * ws: wss:")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(page) // the browser has gone when this fails
	})
}
