// rollout.go: how new versions take over: settings, and what they must fulfil.
package config

import (
	"strings"
	"time"
)

// Strategy is how a new version gets its requests.
type Strategy string

// The strategies.
const (
	Immediate Strategy = "immediate"
	Canary    Strategy = "canary"
)

// Rollout is how a new version comes to answer.
type Rollout struct {
	Strategy  Strategy  `yaml:"strategy" doc:"immediate: a new version gets every request that names no version as soon as it is proven, and the one before stays loaded for its probation. canary: it gets a share of them."`
	Share     float64   `yaml:"share" doc:"Share of the requests that a canary gets, between 0 and 1, until it has passed its probation."`
	Steps     []float64 `yaml:"steps" doc:"Shares that a canary gets one after the other, ascending, each with a probation of its own: [0.05, 0.25, 1]. Empty: share alone."`
	KeyHeader string    `yaml:"key_header" doc:"HTTP header (and gRPC metadata key) whose value decides which version a request goes to, so that one client always meets the same one. Requests without it are shared out by count."`
}

// Probation is how long a new version is watched, and for what.
type Probation struct {
	Time     time.Duration `yaml:"time" doc:"How long. 0s: no probation; the version before is unloaded at once."`
	Requests int64         `yaml:"requests" doc:"The probation ends earlier when the version has answered so many requests, after 5 looks, a second apart, at least. 0: by time alone."`
	Errors   float64       `yaml:"errors" doc:"By how much its share of failed requests may be larger (0.01: one more in a hundred). 1: any."`
	NaN      float64       `yaml:"nan" doc:"By how much its share of answers with NaN or infinity may be larger. 1: any."`
	Latency  float64       `yaml:"latency" doc:"How many times as long its runs of the graph may take, runs with as many rows compared with each other; differences below a millisecond do not count. 0: any."`
	Memory   Bytes         `yaml:"memory" doc:"How much memory its worker may gain with its requests without ceasing to gain. 0: any."`
	Deaths   int           `yaml:"deaths" doc:"The death of its worker that is one too many, counted from 1, when the other version's worker died less. 0: none."`
}

// Transition says what is done with the version that serves while another is loaded.
type Transition string

// The transitions.
const (
	TransitionAuto         Transition = "auto"
	AvailabilityPreserving Transition = "availability_preserving"
	ResourcePreserving     Transition = "resource_preserving"
	TransitionBeside       Transition = "beside"
)

const maxSteps = 100

func (c *checker) rollout(at string, o *ModelOptions) {
	r, p := &o.Rollout, &o.Probation
	c.oneOf(at+".rollout.strategy", string(r.Strategy), string(Immediate), string(Canary))
	c.oneOf(at+".transition", string(o.Transition), string(TransitionAuto), string(AvailabilityPreserving), string(ResourcePreserving), string(TransitionBeside))
	if !(r.Share > 0 && r.Share <= 1) {
		c.addf(at+".rollout.share", "%v is not a share above 0 and at most 1", r.Share)
	}
	last := 0.0
	for i, s := range r.Steps {
		if !(s > last && s <= 1) {
			c.addf(at+".rollout.steps", "step %d, %v, does not continue an ascending list of shares between 0 and 1", i+1, s)
			break
		}
		last = s
	}
	if len(r.Steps) > maxSteps {
		c.addf(at+".rollout.steps", "%d steps, at most %d can be listed", len(r.Steps), maxSteps)
	}
	if fault := headerFault(r.KeyHeader); fault != "" {
		c.addf(at+".rollout.key_header", "%q %s", shorten(r.KeyHeader), fault)
	}
	c.duration(at+".probation.time", p.Time, 0, maxWait)
	if r.Strategy == Canary && p.Time == 0 {
		c.addf(at+".probation.time", "is 0s, so that a canary would never be more than one; write how long it is watched, or strategy: immediate")
	}
	c.number(at+".probation.requests", p.Requests, 0, 1<<53)
	c.number(at+".probation.deaths", int64(p.Deaths), 0, 1<<20)
	c.share(at+".probation.errors", p.Errors)
	c.share(at+".probation.nan", p.NaN)
	if l := p.Latency; l != 0 && !(l > 1 && l <= 1e6) {
		c.addf(at+".probation.latency", "%v is no factor above 1; write 1.5 for half as slow again, or 0 for any", l)
	}
	if p.Memory < 0 {
		c.addf(at+".probation.memory", "%v is less than nothing; write 0 for any", p.Memory)
	}
}

func (c *checker) share(key string, x float64) {
	if !(x >= 0 && x <= 1) {
		c.addf(key, "%v is not a share between 0 and 1", x)
	}
}

// headerFault says why s can be neither a header nor a metadata key.
func headerFault(s string) string {
	switch {
	case s == "" || len(s) > 128 || strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "":
		return "is no header's name; write letters, digits and - alone"
	case strings.HasPrefix(strings.ToLower(s), "grpc-") || strings.HasSuffix(strings.ToLower(s), "-bin"):
		return "has a meaning of its own in gRPC"
	}
	return ""
}
