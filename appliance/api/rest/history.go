// history.go: GET /v1/models/M/history: what happened to a model, which TensorFlow Serving does not tell.
package rest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/inferd/inferd/inference"
)

// Event is one thing that happened to a model.
type Event struct {
	At      time.Time `json:"at"`
	What    string    `json:"what"`
	Version int64     `json:"version"`
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"` // the operator who asked for it
}

// Events in an answer.
const (
	defaultEvents = 100
	maxEvents     = 1000
)

// history writes the newest events of the model, newest first, to s.enc.out.
func (h *handler) history(s *scratch, r *http.Request, model string) *inference.Error {
	limit := defaultEvents
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxEvents {
			return invalid("limit: %q is not a number from 1 to %d", cut(text, 64), maxEvents)
		}
		limit = n
	}
	events, err := h.opts.History(model, limit)
	if err != nil {
		h.log.Warn("history cannot be read", "model", model, "err", err)
		return inference.Errorf(inference.Unavailable, inference.ReasonRuntime, "The history of model %s cannot be read at the moment; the log of inferd has the cause", model)
	}
	if len(events) == 0 {
		if !slices.Contains(h.svc.Models(), model) {
			return inference.Errorf(inference.NotFound, inference.ReasonModel, "Could not find any versions of model %s", model)
		}
		events = []Event{}
	}
	body, err := json.MarshalIndent(events, "", " ")
	if err != nil {
		return inference.AsError(err)
	}
	s.enc.out = append(append(s.enc.out, body...), '\n')
	return nil
}
