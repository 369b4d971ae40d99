// drain.go: takes a running inferd out of a load balancer's choice before it is stopped or worked on.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/control"
)

// drainLook is how often a drain that waits looks.
const drainLook = 100 * time.Millisecond

func drainCommand(e *env) *cobra.Command {
	var (
		undo        bool
		wait, quiet time.Duration
	)
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take a running inferd out of a load balancer's choice, while it goes on answering",
		Long: "drain makes /readyz answer 503 and grpc.health.v1 NOT_SERVING, so that a load balancer sends nothing new; what comes all the same is\n" +
			"answered. With --wait it returns when no prediction has come or run for --quiet, and fails when they still come after --wait.\n" +
			"Jobs in the queue go on. --undo, or a restart, puts it back.",
		Example: "  inferd drain --wait 20s && systemctl stop inferd\n  inferd drain --undo",
		Args:    exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if undo && cmd.Flags().Changed("wait") {
				return usagef("--undo waits for nothing; leave --wait away")
			}
			var said string
			if err := e.ask(cmd.Context(), func(ctx context.Context, c *control.Client) (err error) {
				said, err = c.Drain(ctx, !undo)
				return err
			}); err != nil {
				return err
			}
			if wait > 0 {
				if err := e.awaitQuiet(cmd.Context(), wait, quiet); err != nil {
					return err
				}
				said += fmt.Sprintf("; no request for %v", quiet)
			}
			return e.print(control.Done{Message: said}, func(w io.Writer) { fmt.Fprintln(w, said) })
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it be ready again")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for requests to cease; 0s: not at all")
	cmd.Flags().DurationVar(&quiet, "quiet", 3*time.Second, "with --wait: how long nothing must have come")
	return cmd
}

// awaitQuiet returns when nothing has been answered, run or waited for during quiet.
func (e *env) awaitQuiet(ctx context.Context, wait, quiet time.Duration) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	busy := fmt.Errorf("requests still come or run after %v; it stays out, and goes on answering: look whether the load balancer asks /readyz", wait)
	var last int64
	since := time.Now()
	for first := true; ; first = false {
		code, body, err := c.Do(ctx, http.MethodGet, "/v1/admission", nil)
		if ctx.Err() != nil {
			return busy
		}
		if err != nil {
			return err
		}
		var r admission.Report
		if err := json.Unmarshal(body, &r); code != http.StatusOK || err != nil {
			return fmt.Errorf("/v1/admission answers %d, %q: what runs cannot be told", code, body[:min(len(body), 200)])
		}
		seen := int64(0)
		for _, m := range r.Models {
			seen += m.Answered
		}
		for _, n := range r.Requests.Refused {
			seen += n
		}
		now := time.Now()
		if first || seen != last || r.Requests.Running+r.Requests.Waiting > 0 {
			last, since = seen, now
		} else if now.Sub(since) >= quiet {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return busy
		}
	}
}
