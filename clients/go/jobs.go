// jobs.go: durable requests over HTTP: submit, look, wait, fetch, cancel.
package inferd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// States of a job.
const (
	Queued    = "queued"
	Leased    = "leased" // it runs, or is about to
	Done      = "done"
	Failed    = "failed" // refused for good: the request's own fault
	Dead      = "dead"   // out of attempts, or it killed its worker: kept as a dead letter
	Cancelled = "cancelled"
	Expired   = "expired"
)

// Submission is a request that must be answered whatever happens. Body is predict's JSON ({"instances": ...} or {"inputs": ...}).
type Submission struct {
	Model       string
	Version     int64  // 0: the latest, or Label's, at the time of the run
	Label       string //
	Body        []byte
	Key         string        // names the request: the same key and body again is the same job. Empty: one is made up, so that a lost answer is asked for again safely
	Priority    string        // interactive, normal or batch; empty: the appliance's default
	Expires     time.Duration // when it is not worth running any more, whole seconds; 0: as configured
	MaxAttempts int           // 0: as configured
	OrderingKey string        // jobs of one key run one after another, as submitted
}

// Job is what the appliance knows about one.
type Job struct {
	ID        string    `json:"id"`
	State     string    `json:"state"`
	Model     string    `json:"model"`
	Version   int64     `json:"version,omitempty"`
	Attempts  int       `json:"attempts"`
	Submitted time.Time `json:"submitted"`
	Finished  time.Time `json:"finished"`
	Error     string    `json:"error"`
	Existed   bool      `json:"-"` // of Submit: the appliance had it already
}

// UnmarshalJSON takes a version as a number and as text, and ignores what it does not know.
func (j *Job) UnmarshalJSON(b []byte) error {
	var got struct {
		ID        string    `json:"id"`
		State     string    `json:"state"`
		Model     string    `json:"model"`
		Version   any       `json:"version"`
		Attempts  int       `json:"attempts"`
		Submitted time.Time `json:"submitted"`
		Finished  time.Time `json:"finished"`
		Error     string    `json:"error"`
	}
	if err := json.Unmarshal(b, &got); err != nil {
		return err
	}
	*j = Job{ID: got.ID, State: got.State, Model: got.Model, Attempts: got.Attempts, Submitted: got.Submitted, Finished: got.Finished, Error: got.Error}
	switch v := got.Version.(type) {
	case float64:
		j.Version = int64(v)
	case string:
		j.Version, _ = strconv.ParseInt(v, 10, 64) // 0 is "not said"
	}
	return nil
}

// Over is whether the job will not run any more, unless somebody retries it.
func (j Job) Over() bool { return j.State != Queued && j.State != Leased && j.State != "" }

// Submit hands the request over. When it returns without an error the job is on the appliance's disk and will have a result. It tries again while
// the appliance cannot be reached, is full or busy, until ctx ends; an *Error is a refusal that stands.
func (c *Client) Submit(ctx context.Context, s Submission) (Job, error) {
	path, err := modelPath(s.Model, s.Version, s.Label)
	if err != nil {
		return Job{}, err
	}
	if s.Key == "" {
		s.Key = rand.Text()
	}
	h := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {s.Key}}
	set := func(name, value string, is bool) {
		if is {
			h.Set(name, value)
		}
	}
	set("X-Inferd-Priority", s.Priority, s.Priority != "")
	set("X-Inferd-Expires", strconv.FormatInt(int64((s.Expires+time.Second-1)/time.Second), 10), s.Expires > 0)
	set("X-Inferd-Max-Attempts", strconv.Itoa(s.MaxAttempts), s.MaxAttempts > 0)
	set("X-Inferd-Ordering-Key", s.OrderingKey, s.OrderingKey != "")
	a, err := c.do(ctx, http.MethodPost, path+":submit", h, s.Body)
	if err != nil {
		return Job{}, err
	}
	j, err := readJob(a.body)
	j.Existed = a.status == http.StatusOK
	return j, err
}

func modelPath(model string, version int64, label string) (string, error) {
	switch {
	case model == "":
		return "", errors.New("inferd: a model is needed")
	case version != 0 && label != "":
		return "", errors.New("inferd: Version and Label both choose a version; give one of them")
	case version != 0:
		return fmt.Sprintf("/v1/models/%s/versions/%d", url.PathEscape(model), version), nil
	case label != "":
		return "/v1/models/" + url.PathEscape(model) + "/labels/" + url.PathEscape(label), nil
	}
	return "/v1/models/" + url.PathEscape(model), nil
}

func readJob(body []byte) (Job, error) {
	var j Job
	if err := json.Unmarshal(body, &j); err != nil {
		return j, fmt.Errorf("inferd: the answer is no job: %w", err)
	}
	if j.ID == "" || j.State == "" {
		return j, fmt.Errorf("inferd: the answer is no job: %.100q", body)
	}
	return j, nil
}

func (c *Client) job(ctx context.Context, method, path string) (Job, error) {
	a, err := c.do(ctx, method, "/v1/jobs/"+path, nil, nil)
	if err != nil {
		return Job{}, err
	}
	return readJob(a.body)
}

// Job looks a job up.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	return c.job(ctx, http.MethodGet, url.PathEscape(id))
}

// longPoll is for how long one question waits at the appliance; a dead connection is found out no later than answerTimeout.
const longPoll = 30 * time.Second

// Wait returns once the job is over, well or not, or ctx ends. It survives restarts of the appliance.
func (c *Client) Wait(ctx context.Context, id string) (Job, error) {
	for n := 0; ; n++ {
		asked := time.Now()
		j, err := c.job(ctx, http.MethodGet, url.PathEscape(id)+"?wait="+strconv.Itoa(int(longPoll/time.Second)))
		if err != nil || j.Over() {
			return j, err
		}
		if time.Since(asked) > longPoll/2 {
			n = 0
			continue
		}
		if err := sleep(ctx, c.backoff(n, 0)); err != nil { // it did not wait: do not turn that into a spin
			return j, err
		}
	}
}

// Result waits for the job and returns predict's answer. A job that ended otherwise is an *Error with the status and the reason that it has.
// The result stays where it is until Forget or the appliance's retention takes it.
func (c *Client) Result(ctx context.Context, id string) ([]byte, error) {
	if _, err := c.Wait(ctx, id); err != nil {
		return nil, err
	}
	// A job's own error has a status too, and is final; only a refusal that says when to come again is of the moment.
	later := func(e *Error) bool { return e.Temporary() && e.RetryAfter > 0 }
	a, err := c.ask(ctx, http.MethodGet, "/v1/jobs/"+url.PathEscape(id)+"/result", nil, nil, later)
	if err != nil {
		return nil, err
	}
	return a.body, nil
}

// Cancel ends a job that has no result yet. The state in the answer says whether it came in time.
func (c *Client) Cancel(ctx context.Context, id string) (Job, error) {
	return c.job(ctx, http.MethodPost, url.PathEscape(id)+":cancel")
}

// Retry queues a job that failed, died, expired or was cancelled once more, with all its attempts.
func (c *Client) Retry(ctx context.Context, id string) (Job, error) {
	return c.job(ctx, http.MethodPost, url.PathEscape(id)+":retry")
}

// Forget acknowledges a job that is over: the appliance drops it and its result. One that is gone already is no error, for the word may have
// been lost on its way back.
func (c *Client) Forget(ctx context.Context, id string) error {
	_, err := c.do(ctx, http.MethodDelete, "/v1/jobs/"+url.PathEscape(id), nil, nil)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil
	}
	return err
}
