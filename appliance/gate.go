// gate.go: the configuration of the gate that every prediction passes.
package appliance

import (
	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/config"
)

// gateLimits are the limits of a configuration that has been validated.
func gateLimits(c config.Admission) admission.Limits {
	l := admission.Limits{MaxRequests: c.MaxRequests,
		Client: admission.ClientLimits{Rate: c.ClientRate, Burst: c.ClientBurst, Concurrency: c.ClientConcurrency}}
	for i := range c.Clients {
		n := &c.Clients[i]
		p, err := n.Prefix()
		if err != nil {
			continue
		}
		l.Clients = append(l.Clients, admission.NamedClient{Name: n.Name, Addresses: p,
			ClientLimits: admission.ClientLimits{Weight: n.Weight, Rate: n.Rate, Burst: n.Burst, Concurrency: n.Concurrency}})
	}
	return l
}
