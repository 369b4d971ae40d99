// ready.go: from a candidate to a runner that may serve: loaded, proven, run the way that suits it, and promoted.
package updater

import (
	"context"
	"fmt"
	"time"

	"github.com/inferd/inferd/inference"
)

// ready loads the candidate and proves it; where Options.Tune has a better way to run it, that is what is returned. say gets the progress, "" when
// the load is done. A runner that is returned with an error is the caller's to close; without one, loading is what has failed.
func (c *Controller) ready(ctx context.Context, cand Candidate, say func(string)) (inference.Runner, Proof, error) {
	began := time.Now()
	r, err := c.opts.Load(ctx, cand)
	if err != nil {
		return nil, Proof{}, err
	}
	say("")
	c.hook("warming")
	proof, err := Prove(ctx, r, cand, c.opts.Probe, c.opts.Decode)
	if err != nil && c.opts.Plainer != nil && ctx.Err() == nil && c.opts.Plainer(cand, r, err) {
		if err := r.Close(); err != nil {
			c.opts.Log.Warn("worker did not end cleanly", "model", cand.Model.Name, "version", cand.Number, "err", err)
		}
		if r, err = c.opts.Load(ctx, cand); err != nil {
			return nil, Proof{}, err
		}
		proof, err = Prove(ctx, r, cand, c.opts.Probe, c.opts.Decode)
	}
	if len(cand.Info.Signatures) == 0 {
		for _, key := range sortedKeys(cand.Info.Refused) {
			proof.Unproven += fmt.Sprintf("; signature %q cannot be served: %s", key, cand.Info.Refused[key])
		}
	}
	if err == nil && c.opts.Tune != nil {
		r, proof = c.opts.Tune(ctx, Proven{r, cand, proof, time.Since(began)}, say)
	}
	if err == nil && c.opts.Proven != nil {
		err = c.opts.Proven(ctx, r)
	}
	return r, proof, err
}

// Proven is a loaded version that has been proven.
type Proven struct {
	Runner    inference.Runner
	Candidate Candidate
	Proof     Proof
	Took      time.Duration // from the begin of the load
}
