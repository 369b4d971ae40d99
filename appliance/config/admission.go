// admission.go: how many requests may come at once, altogether and from each client, and who the clients are.
package config

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
)

const (
	maxRequests = 1 << 20
	maxRate     = 1e9
	maxWeight   = 1e6
	// maxNamedClients bounds the list, which every request is looked up in.
	maxNamedClients = 256
)

// Admission is what a request is asked before its body is read.
type Admission struct {
	MaxRequests       int           `yaml:"max_requests" doc:"Requests that may be in the house at once, running or waiting; past it they are refused with 503 or UNAVAILABLE."`
	ClientRate        float64       `yaml:"client_rate" doc:"Requests per second that one client (an address; of IPv6 a /64 network) may send; past it they are refused with 429 or RESOURCE_EXHAUSTED. 0: no limit."`
	ClientBurst       int           `yaml:"client_burst" doc:"Requests that a client may send at once before client_rate holds it. 0: those of one second."`
	ClientConcurrency int           `yaml:"client_concurrency" doc:"Requests that one client may have in the house. 0: no limit of its own."`
	Clients           []NamedClient `yaml:"clients" doc:"Clients that are known by name: {name: line, address: 192.0.2.0/24, weight: 4, rate: 100, burst: 10, concurrency: 8}. Everyone whose address lies in address counts as one client; the first that fits counts. weight (default 1) says how large its share of a busy model's time is; rate, burst and concurrency are its own in place of the client_ keys, 0 and left out: no limit."`
}

// NamedClient is one of Admission.Clients.
type NamedClient struct {
	Name        string  `yaml:"name"`
	Address     string  `yaml:"address"`
	Weight      float64 `yaml:"weight"`
	Rate        float64 `yaml:"rate"`
	Burst       int     `yaml:"burst"`
	Concurrency int     `yaml:"concurrency"`
}

// Prefix is the addresses of a client: one, or a network.
func (n *NamedClient) Prefix() (netip.Prefix, error) {
	if !strings.Contains(n.Address, "/") {
		at, err := netip.ParseAddr(n.Address)
		if err != nil || at.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is not an address; write for example 192.0.2.7 or 192.0.2.0/24", shorten(n.Address))
		}
		at = at.Unmap()
		return netip.PrefixFrom(at, at.BitLen()), nil
	}
	p, err := netip.ParsePrefix(n.Address)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write for example 192.0.2.0/24", shorten(n.Address))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 network in IPv6's clothes; write it as 192.0.2.0/24", shorten(n.Address))
	}
	return p.Masked(), nil
}

func (c *checker) admission(a *Admission) {
	c.number("admission.max_requests", int64(a.MaxRequests), 1, maxRequests)
	c.client("admission.client_", a.ClientRate, a.ClientBurst, a.ClientConcurrency, a.MaxRequests)
	if len(a.Clients) > maxNamedClients {
		c.addf("admission.clients", "%d clients, at most %d can be named", len(a.Clients), maxNamedClients)
		return
	}
	names, networks := make(map[string]bool), make(map[netip.Prefix]bool)
	for i := range a.Clients {
		n, at := &a.Clients[i], fmt.Sprintf("admission.clients[%d].", i)
		switch {
		case n.Name == "" || len(n.Name) > 64 || strings.ContainsFunc(n.Name, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }):
			c.addf(at+"name", "%q cannot name a client; write 1 to 64 bytes without control characters", shorten(n.Name))
		case names[n.Name]:
			c.addf(at+"name", "%q is another client's already", n.Name)
		}
		names[n.Name] = true
		p, err := n.Prefix()
		switch {
		case err != nil:
			c.addf(at+"address", "%v", err)
		case networks[p]:
			c.addf(at+"address", "%s is another client's already", n.Address)
		}
		networks[p] = true
		if !(n.Weight >= 0 && n.Weight <= maxWeight) {
			c.addf(at+"weight", "%v is not between 0 and %v", n.Weight, maxWeight)
		}
		c.client(at, n.Rate, n.Burst, n.Concurrency, a.MaxRequests)
	}
}

func (c *checker) client(at string, rate float64, burst, concurrency, most int) {
	if !(rate >= 0 && rate <= maxRate) {
		c.addf(at+"rate", "%v is not between 0 and %v requests per second", rate, maxRate)
	}
	c.number(at+"burst", int64(burst), 0, maxRequests)
	c.number(at+"concurrency", int64(concurrency), 0, maxRequests)
	if burst > 0 && rate == 0 {
		c.addf(at+"burst", "%d has a meaning only beside a rate, and there is none", burst)
	}
	if most > 0 && concurrency > most && concurrency <= maxRequests {
		c.addf(at+"concurrency", "%d is more than admission.max_requests, which is %d", concurrency, most)
	}
}
