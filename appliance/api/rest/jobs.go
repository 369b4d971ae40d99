// jobs.go: requests that are queued: POST .../models/M:submit, and what became of them: /v1/jobs/ID.
package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
)

// The headers of a submit, beside [PriorityHeader], and of a result.
const (
	KeyHeader         = "Idempotency-Key"
	ExpiresHeader     = "X-Inferd-Expires" // seconds
	MaxAttemptsHeader = "X-Inferd-Max-Attempts"
	OrderingHeader    = "X-Inferd-Ordering-Key"
	VersionHeader     = "X-Inferd-Model-Version" // of a result: that answered
)

// The acts on jobs, as they are called in observations.
const (
	actSubmit  = "submit"
	actJob     = "job"
	actResult  = "job_result"
	actCancel  = "job_cancel"
	actRetry   = "job_retry"
	actForget  = "job_forget"
	jobsPath   = "/v1/jobs"
	maxJobWait = time.Minute // of a client that waits for a job
)

// parseJob reads what follows /v1/jobs: /ID with GET and DELETE, /ID/result with GET, /ID:cancel and /ID:retry with POST.
func parseJob(r *http.Request, rest string) (route, *inference.Error) {
	id, after := segment(rest)
	to := route{job: id}
	switch {
	case id == "":
		return route{}, malformed(r)
	case r.Method == http.MethodGet && after == "":
		to.act = actJob
	case r.Method == http.MethodGet && strings.EqualFold(after, "/result"):
		to.act = actResult
	case r.Method == http.MethodDelete && after == "":
		to.act = actForget
	case r.Method == http.MethodPost && strings.EqualFold(after, ":cancel"):
		to.act = actCancel
	case r.Method == http.MethodPost && strings.EqualFold(after, ":retry"):
		to.act = actRetry
	default:
		return route{}, malformed(r)
	}
	return to, nil
}

// jobs answers for a job that there is.
func (h *handler) jobs(s *scratch, w http.ResponseWriter, r *http.Request, to route, o *api.Observation) *inference.Error {
	if h.opts.Jobs == nil {
		return malformed(r)
	}
	ctx := r.Context()
	if bad := h.opts.Jobs.Readable(to.grant, to.job); bad != nil {
		return bad
	}
	switch to.act {
	case actJob:
		wait, bad := jobWait(r)
		if bad != nil {
			return bad
		}
		it, bad := h.opts.Jobs.Job(to.job)
		if bad == nil && wait > 0 && !it.State.Final() {
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			it, bad = h.opts.Jobs.Wait(ctx, to.job)
		}
		if bad != nil {
			return bad
		}
		o.Model = it.Model
		return s.json(h.opts.Jobs.Describe(&it))
	case actResult:
		result, it, bad := h.opts.Jobs.Result(to.job)
		o.Model = it.Model
		if bad != nil {
			return bad
		}
		o.Version = it.AnsweredBy
		w.Header()[VersionHeader] = []string{strconv.FormatInt(it.AnsweredBy, 10)}
		switch jobs.KindOf(&it) {
		case api.Proto:
			w.Header()["Content-Type"] = []string{"application/x-protobuf"}
		case api.Raw:
			w.Header()["Content-Type"] = []string{"application/octet-stream"}
		}
		s.enc.out = append(s.enc.out, result...)
		return nil
	case actCancel, actRetry:
		act := h.opts.Jobs.Cancel
		if to.act == actRetry {
			act = h.opts.Jobs.Retry
		}
		it, bad := act(ctx, to.job)
		if bad != nil {
			return bad
		}
		o.Model = it.Model
		return s.json(h.opts.Jobs.Describe(&it))
	default:
		s.status = http.StatusNoContent
		return h.opts.Jobs.Forget(ctx, to.job)
	}
}

// submit queues a predict request.
func (h *handler) submit(s *scratch, w http.ResponseWriter, r *http.Request, to route, start time.Time) *inference.Error {
	if h.opts.Jobs == nil {
		return malformed(r)
	}
	s.unread = true
	if bad := h.opts.Jobs.Missing(); bad != nil {
		return bad
	}
	caller, bad := h.caller(r, start, 0)
	if bad != nil {
		return bad
	}
	sub := jobs.Submission{Spec: to.spec, Kind: api.JSON, Class: caller.Class, Client: caller.From, Owner: to.grant.Name(), Entered: true,
		Key: r.Header.Get(KeyHeader), Lane: r.Header.Get(OrderingHeader)}
	if bad = submitHeaders(r.Header, &sub); bad != nil {
		return bad
	}
	entry, bad := h.svc.EnterDoor(caller)
	if bad != nil {
		return bad
	}
	defer entry.Leave()
	s.unread = r.ContentLength > h.opts.MaxRequestBytes // else readBody begins
	if s.body, bad = readBody(s.body, w, r, h.opts.MaxRequestBytes, entry.Grow); bad != nil {
		return bad
	}
	sub.Body = s.body[:len(s.body)-sentinel]
	it, existed, bad := h.opts.Jobs.Submit(r.Context(), sub)
	if bad != nil {
		return bad
	}
	if s.status = http.StatusAccepted; existed {
		s.status = http.StatusOK
	}
	w.Header()["Location"] = []string{jobsPath + "/" + it.ID}
	return s.json(struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}{it.ID, it.State.String()})
}

// submitHeaders reads the numbers among the headers of a submit.
func submitHeaders(header http.Header, sub *jobs.Submission) *inference.Error {
	if v := header[ExpiresHeader]; len(v) > 0 {
		seconds, err := strconv.ParseFloat(strings.TrimSpace(v[0]), 64)
		if err != nil || !(seconds > 0) || seconds > 1e9 {
			return invalid("%s: %q is not a number of seconds above zero; send a decimal number such as 3600, or leave the header out", ExpiresHeader, cut(v[0], 64))
		}
		sub.Expires = max(time.Duration(seconds*float64(time.Second)), 1)
	}
	if v := header[MaxAttemptsHeader]; len(v) > 0 {
		n, err := strconv.Atoi(strings.TrimSpace(v[0]))
		if err != nil || n < 1 || n > jobs.MostAttempts {
			return invalid("%s: %q is not a number from 1 to %d", MaxAttemptsHeader, cut(v[0], 64), jobs.MostAttempts)
		}
		sub.MaxAttempts = n
	}
	return nil
}

// jobWait is how long the client waits for the job to end, 0 for not at all: ?wait=2.5, in seconds, or ?wait=10s.
func jobWait(r *http.Request) (time.Duration, *inference.Error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if seconds, bad := strconv.ParseFloat(text, 64); bad == nil && seconds >= 0 && seconds <= 1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, invalid("wait: %q is not a number of seconds; write for example wait=30", cut(text, 64))
	}
	return min(d, maxJobWait), nil
}

// json writes a good answer that is no prediction.
func (s *scratch) json(v any) *inference.Error {
	b, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return inference.AsError(err)
	}
	s.enc.out = append(append(s.enc.out, b...), '\n')
	return nil
}
