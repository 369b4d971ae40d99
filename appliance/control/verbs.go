// verbs.go: what an operator does to a model: rollback, promote, pin, unpin, load, unload, retry, history; and who the operator is.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/updater"
)

const (
	verbTimeout  = 10 * time.Second // the updater answers at once, unless it hangs
	historyLimit = 1000
)

// Verbs do something to a model and say what. by names who asked. *updater.Controller is one.
type Verbs interface {
	Rollback(ctx context.Context, model, by string) (string, error)
	Promote(ctx context.Context, model, by string) (string, error)
	Pin(ctx context.Context, model string, version int64, by string) (string, error)
	Unpin(ctx context.Context, model, by string) (string, error)
	Unload(ctx context.Context, model, by string) (string, error)
	Load(ctx context.Context, model, by string) (string, error) // blocks until it is loaded, or cannot be
	Retry(ctx context.Context, model string, version int64, by string) (string, error)
	History(model string, limit int) ([]updater.Event, error)
	labelVerbs
}

// Done is the answer to a verb.
type Done struct {
	Message string `json:"message,omitempty"`
	Error   string `json:"error,omitempty"`
}

func handleVerbs(mux *http.ServeMux, v Verbs) {
	for name, do := range map[string]func(ctx context.Context, model string, version int64, by string) (string, error){
		"pin": v.Pin, "retry": v.Retry,
		"rollback": func(ctx context.Context, model string, _ int64, by string) (string, error) {
			return v.Rollback(ctx, model, by)
		},
		"promote": func(ctx context.Context, model string, _ int64, by string) (string, error) {
			return v.Promote(ctx, model, by)
		},
		"unpin": func(ctx context.Context, model string, _ int64, by string) (string, error) {
			return v.Unpin(ctx, model, by)
		},
		"unload": func(ctx context.Context, model string, _ int64, by string) (string, error) {
			return v.Unload(ctx, model, by)
		},
		"load": func(ctx context.Context, model string, _ int64, by string) (string, error) {
			return v.Load(ctx, model, by)
		},
	} {
		mux.HandleFunc("POST /control/"+name, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			version, err := strconv.ParseInt(q.Get("version"), 10, 64)
			if err != nil && (name == "pin" || name == "retry") {
				answer(w, http.StatusBadRequest, Done{Error: fmt.Sprintf("%q is no version number", q.Get("version"))})
				return
			}
			ctx := r.Context()
			if name != "load" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, verbTimeout)
				defer cancel()
			}
			text, err := do(ctx, q.Get("model"), version, peer(r.Context()))
			if err != nil {
				answer(w, statusOf(err), Done{Error: messageOf(err)})
				return
			}
			answer(w, http.StatusOK, Done{Message: text})
		})
	}
	handleLabels(mux, v)
	mux.HandleFunc("GET /control/history", func(w http.ResponseWriter, r *http.Request) {
		limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
		if err != nil || limit <= 0 {
			limit = historyLimit
		}
		events, err := v.History(r.URL.Query().Get("model"), min(limit, historyLimit))
		if err != nil {
			answer(w, statusOf(err), Done{Error: messageOf(err)})
			return
		}
		answer(w, http.StatusOK, events)
	})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone when this fails
}

func statusOf(err error) int {
	if e := inference.AsError(err); e.Reason == inference.ReasonMemory {
		return http.StatusInsufficientStorage
	}
	switch inference.AsError(err).Code {
	case inference.NotFound:
		return http.StatusNotFound
	case inference.FailedPrecondition:
		return http.StatusConflict
	case inference.InvalidArgument:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func messageOf(err error) string {
	var e *inference.Error
	if errors.As(err, &e) {
		return e.Msg
	}
	return err.Error()
}

// peer names the user at the other end.
func peer(ctx context.Context) string {
	p, ok := access.PeerFrom(ctx)
	if !ok {
		return "an operator"
	}
	return access.UserName(p.UID)
}

// Verb asks for rollback, promote, pin, unpin, load, unload or retry and returns what inferd says to it. version counts with pin and retry only.
func (c *Client) Verb(ctx context.Context, verb, model string, version int64) (string, error) {
	return c.verb(ctx, verb, url.Values{"model": {model}, "version": {strconv.FormatInt(version, 10)}})
}

func (c *Client) verb(ctx context.Context, verb string, q url.Values) (string, error) {
	code, body, err := c.Do(ctx, http.MethodPost, "/control/"+verb+"?"+q.Encode(), nil)
	if err != nil {
		return "", err
	}
	var d Done
	if json.Unmarshal(body, &d) != nil || d.Message == "" && d.Error == "" {
		return "", c.elsewhere(verb, code)
	}
	if code != http.StatusOK {
		return "", errors.New(d.Error)
	}
	return d.Message, nil
}

// History asks for the newest limit events of a model, newest first.
func (c *Client) History(ctx context.Context, model string, limit int) ([]updater.Event, error) {
	q := url.Values{"model": {model}, "limit": {strconv.Itoa(limit)}}
	code, body, err := c.Do(ctx, http.MethodGet, "/control/history?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		var d Done
		if json.Unmarshal(body, &d) == nil && d.Error != "" {
			return nil, errors.New(d.Error)
		}
		return nil, c.elsewhere("the history", code)
	}
	var events []updater.Event
	if err := json.Unmarshal(body, &events); err != nil {
		return nil, fmt.Errorf("history from %s: %w; is it an inferd?", c.what, err)
	}
	return events, nil
}
