// queue.go: what an operator does to the queue of a running inferd.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// Queue is what operators may do to the queue. *jobs.Service is one, running or over a file of its own.
type Queue interface {
	Overview() (jobs.Overview, *inference.Error)
	List(sel jobs.Selection) (jobs.Listed, *inference.Error)
	Show(id string) (jobs.Shown, *inference.Error)
	Operate(ctx context.Context, verb string, sel jobs.Selection) (done int, failed *inference.Error)
	Compact(ctx context.Context) (jobs.Compacted, *inference.Error)
	Check(ctx context.Context) (storage.Report, *inference.Error)
}

// Operated is the answer to retry, cancel and purge.
type Operated struct {
	Jobs int `json:"jobs"`
}

func handleQueue(mux *http.ServeMux, q Queue) {
	mux.HandleFunc("GET /control/queue", func(w http.ResponseWriter, _ *http.Request) {
		answerQueue(w, func() (any, *inference.Error) { return q.Overview() })
	})
	mux.HandleFunc("GET /control/queue/jobs", func(w http.ResponseWriter, r *http.Request) {
		answerQueue(w, func() (any, *inference.Error) { return q.List(selection(r.URL.Query())) })
	})
	mux.HandleFunc("GET /control/queue/job", func(w http.ResponseWriter, r *http.Request) {
		answerQueue(w, func() (any, *inference.Error) { return q.Show(r.URL.Query().Get("id")) })
	})
	for _, verb := range []string{jobs.VerbRetry, jobs.VerbCancel, jobs.VerbPurge} {
		mux.HandleFunc("POST /control/queue/"+verb, func(w http.ResponseWriter, r *http.Request) {
			answerQueue(w, func() (any, *inference.Error) {
				n, err := q.Operate(r.Context(), verb, selection(r.URL.Query()))
				return Operated{n}, err
			})
		})
	}
	mux.HandleFunc("POST /control/queue/compact", func(w http.ResponseWriter, r *http.Request) {
		answerQueue(w, func() (any, *inference.Error) { return q.Compact(r.Context()) })
	})
	mux.HandleFunc("POST /control/queue/check", func(w http.ResponseWriter, r *http.Request) {
		answerQueue(w, func() (any, *inference.Error) { return q.Check(r.Context()) })
	})
}

func answerQueue(w http.ResponseWriter, f func() (any, *inference.Error)) {
	v, err := f()
	if err != nil {
		answer(w, api.HTTPStatus(err), Done{Error: err.Msg})
		return
	}
	answer(w, http.StatusOK, v)
}

func selection(q url.Values) jobs.Selection {
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(q.Get(name), 10, 63) // 0: not said
		return n
	}
	return jobs.Selection{ID: q.Get("id"), Model: q.Get("model"), State: q.Get("state"), After: number("after"), Limit: int(number("limit"))}
}

func query(sel jobs.Selection) string {
	q := url.Values{"id": {sel.ID}, "model": {sel.Model}, "state": {sel.State}, "after": {strconv.FormatUint(sel.After, 10)}, "limit": {strconv.Itoa(sel.Limit)}}
	return "?" + q.Encode()
}

// askQueue asks for something below /control/queue.
func (c *Client) askQueue(ctx context.Context, method, path string, to any) error {
	code, body, err := c.Do(ctx, method, "/control/queue"+path, nil)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		var d Done
		if json.Unmarshal(body, &d) == nil && d.Error != "" {
			return errors.New(d.Error)
		}
		return c.elsewhere("the queue", code)
	}
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("the queue from %s: %w; is it an inferd?", c.what, err)
	}
	return nil
}

// Overview asks for the queue in numbers.
func (c *Client) Overview(ctx context.Context) (o jobs.Overview, err error) {
	return o, c.askQueue(ctx, http.MethodGet, "", &o)
}

// Jobs asks for the chosen jobs.
func (c *Client) Jobs(ctx context.Context, sel jobs.Selection) (l jobs.Listed, err error) {
	return l, c.askQueue(ctx, http.MethodGet, "/jobs"+query(sel), &l)
}

// Job asks for everything about one job.
func (c *Client) Job(ctx context.Context, id string) (j jobs.Shown, err error) {
	return j, c.askQueue(ctx, http.MethodGet, "/job?"+url.Values{"id": {id}}.Encode(), &j)
}

// Operate has something done to the chosen jobs, and is to how many it was done.
func (c *Client) Operate(ctx context.Context, verb string, sel jobs.Selection) (int, error) {
	var o Operated
	err := c.askQueue(ctx, http.MethodPost, "/"+url.PathEscape(verb)+query(sel), &o)
	return o.Jobs, err
}

// Compact has the queue's file written anew.
func (c *Client) Compact(ctx context.Context) (o jobs.Compacted, err error) {
	return o, c.askQueue(ctx, http.MethodPost, "/compact", &o)
}

// CheckQueue has the queue's file checked.
func (c *Client) CheckQueue(ctx context.Context) (r storage.Report, err error) {
	return r, c.askQueue(ctx, http.MethodPost, "/check", &r)
}
