// submit.go: predict --submit: a prediction that is queued, and waited for if that is asked for.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/jobs"
)

// submitFlags are those of predict that are about the queue.
type submitFlags struct {
	submit, wait bool
	key          string
}

func (f *submitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.submit, "submit", false, "queue the request, which survives restarts of either side, and print the job's id (JSON input only)")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "with --submit: wait for the result, --timeout at most, and print it")
	cmd.Flags().StringVar(&f.key, "key", "", "with --submit: idempotency key; the same request with the same key is the same job")
}

func (f *submitFlags) check(format string) error {
	switch {
	case !f.submit && (f.wait || f.key != ""):
		return usagef("--wait and --key are for a job; --submit makes the request one")
	case f.submit && format != "" && format != formatJSON:
		return usagef("--submit queues JSON; the input is %s", format)
	}
	return nil
}

// queued submits the body and prints the job's id or, when that is asked for, its result.
func (e *env) queued(ctx context.Context, c *control.Client, path string, body []byte, f submitFlags) error {
	var header http.Header
	if f.key != "" {
		header = http.Header{"Idempotency-Key": {f.key}}
	}
	status, answer, err := c.DoWith(ctx, http.MethodPost, path+":submit", header, body)
	if err != nil {
		return err
	}
	if status != http.StatusAccepted && status != http.StatusOK {
		return refusedJSON(status, answer)
	}
	var job jobs.Job
	if err := json.Unmarshal(answer, &job); err != nil || job.ID == "" {
		return fmt.Errorf("the answer to a submit cannot be read: %.200s", answer)
	}
	if !f.wait {
		return e.print(map[string]string{"id": job.ID, "state": job.State}, func(w io.Writer) { fmt.Fprintln(w, job.ID) })
	}
	at := "/v1/jobs/" + url.PathEscape(job.ID)
	for job.Finished == nil {
		if status, answer, err = c.Do(ctx, http.MethodGet, at+"?wait="+url.QueryEscape((20*time.Second).String()), nil); err != nil {
			return fmt.Errorf("job %s was taken, and is not answered yet (`inferd queue show %s`): %w", job.ID, job.ID, err)
		}
		if status != http.StatusOK {
			return refusedJSON(status, answer)
		}
		if err := json.Unmarshal(answer, &job); err != nil {
			return fmt.Errorf("the state of job %s cannot be read: %w", job.ID, err)
		}
	}
	if status, answer, err = c.Do(ctx, http.MethodGet, at+"/result", nil); err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("job %s: %w", job.ID, refusedJSON(status, answer))
	}
	return e.printAnswer(answer)
}

// refusedJSON is a refusal over REST in its own words.
func refusedJSON(status int, answer []byte) error {
	var refused struct{ Error string }
	if json.Unmarshal(answer, &refused) == nil && refused.Error != "" {
		return fmt.Errorf("%s (HTTP %d)", refused.Error, status)
	}
	return fmt.Errorf("HTTP %d: %.200s", status, answer)
}
