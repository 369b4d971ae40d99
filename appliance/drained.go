// drained.go: out of a load balancer's choice by an operator's word, while everything goes on answering.
package appliance

import "github.com/inferd/inferd/appliance/health"

// Drain takes the appliance out: /readyz and grpc.health.v1 say that it is not ready, so that nothing new is sent, and what is sent all the
// same is answered. With out false it is ready again as far as its models go. A restart forgets it. by names who asked.
func (a *Appliance) Drain(out bool, by string) string {
	was := a.health.Has(health.CodeDrained)
	if out {
		a.health.Set(health.Condition{Code: health.CodeDrained, Severity: health.Unready,
			Message: "taken out by an operator: it answers, and asks for no more requests; `inferd drain --undo` puts it back, and so does a restart"}) // no name: clients read it
	} else {
		a.health.Clear(health.CodeDrained, "")
	}
	a.news.tell()
	if was != out {
		a.log.Info(map[bool]string{true: "taken out of service", false: "put back into service"}[out], "by", by)
	}
	switch {
	case out && was:
		return "not ready, as before; requests are answered all the same"
	case out:
		return "not ready from now on; requests are answered all the same"
	case was:
		return "put back"
	default:
		return "nothing to put back: it was not taken out"
	}
}
