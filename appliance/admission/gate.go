// gate.go: what is asked of every request before anything is done for it, whatever model it is for.
package admission

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// Share is the memory that requests may have together. A [Ledger] has one.
type Share interface {
	TakeRequest(bytes int64) bool
	GiveRequest(bytes int64)
}

// Limits are what the gate holds requests to. Zero means none, but for MaxRequests.
type Limits struct {
	MaxRequests int // in the house at once; 0 means [DefaultMaxRequests]
	Client      ClientLimits
	Clients     []NamedClient // the first that has the address counts
}

// ClientLimits are those of one client.
type ClientLimits struct {
	Weight      float64 // of its share; 0 means 1
	Rate        float64 // requests per second
	Burst       int     // that may come at once; 0 means one second's
	Concurrency int     // requests in the house
}

// NamedClient is everyone whose address is in Addresses, as one client.
type NamedClient struct {
	Name      string
	Addresses netip.Prefix
	ClientLimits
}

const (
	// DefaultMaxRequests is how many requests may be in the house at once: each has a goroutine and some memory.
	DefaultMaxRequests = 8192
	// maxClients is how many addresses are told apart. Those beyond it are one client, until others have been quiet.
	maxClients = 4096
	// quiet is after how long without a request a client is forgotten.
	quiet = time.Minute
)

// Gate counts requests, altogether and by client. Every method may be called from anywhere.
type Gate struct {
	share  Share
	inside atomic.Int64

	mu      sync.Mutex
	limits  Limits                 // guarded by mu
	named   []*client              // guarded by mu; as limits.Clients
	clients map[netip.Addr]*client // guarded by mu
	rest    *client                // guarded by mu; those beyond maxClients
	queue   *client                // guarded by mu; what comes out of the durable queue
	refused map[string]int64       // guarded by mu; by reason
	swept   time.Time              // guarded by mu
}

// client is guarded by Gate.mu but for who, which is immutable.
type client struct {
	who      *inference.Client
	limits   ClientLimits
	inside   int
	tokens   float64
	filled   time.Time // when tokens was right
	last     time.Time
	requests int64
	refused  int64
	rate     float64 // requests per second, decaying
}

// NewGate is a gate; share may be nil.
func NewGate(l Limits, share Share) *Gate {
	g := &Gate{share: share, clients: make(map[netip.Addr]*client), refused: make(map[string]int64),
		queue: newClient("queue", ClientLimits{})}
	g.Set(l)
	return g
}

// Set changes the limits. Requests that are inside stay, and clients keep what they were counted for.
func (g *Gate) Set(l Limits) {
	if l.MaxRequests <= 0 {
		l.MaxRequests = DefaultMaxRequests
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	before := make(map[string]*client, len(g.named))
	for _, c := range g.named {
		before[c.who.Name] = c
	}
	g.named = nil
	for _, n := range l.Clients {
		g.named = append(g.named, before[n.Name].with(n.Name, n.ClientLimits))
	}
	for at, c := range g.clients {
		g.clients[at] = c.with(c.who.Name, l.Client)
	}
	g.rest = g.rest.with("others", l.Client)
}

// with is the client under other limits; nil is a new one. Passes that are out hold the one they came by, so it stays the same but where
// its weight, which others read without the lock, is another: then what is inside is not counted by the new one.
func (c *client) with(name string, l ClientLimits) *client {
	if c == nil || c.who.Weight != l.Weight {
		return newClient(name, l)
	}
	fresh := newClient(name, l)
	if c.limits != fresh.limits {
		c.limits, c.tokens = fresh.limits, fresh.tokens
		c.filled = c.last
	}
	return c
}

func newClient(name string, l ClientLimits) *client {
	if l.Burst <= 0 {
		l.Burst = int(math.Ceil(l.Rate))
	}
	return &client{who: &inference.Client{Name: name, Weight: l.Weight}, limits: l, tokens: float64(l.Burst)}
}

// Pass lets one request in until it is left. The zero Pass lets nobody in.
type Pass struct {
	gate   *Gate
	client *client
	bytes  int64
}

// Client is whose request it is.
func (p *Pass) Client() *inference.Client {
	if p.client == nil {
		return nil
	}
	return p.client.who
}

// Leave counts the request out. Calling it again does nothing.
func (p *Pass) Leave() {
	g := p.gate
	if g == nil {
		return
	}
	p.gate = nil
	g.inside.Add(-1)
	if g.share != nil {
		g.share.GiveRequest(p.bytes)
	}
	g.mu.Lock()
	p.client.inside--
	g.mu.Unlock()
}

// Grow asks for so many bytes in all for a request whose size was not known. It reports false, and changes nothing, when the share does not have them.
func (p *Pass) Grow(bytes int64) bool {
	if p.gate == nil || p.gate.share == nil || bytes <= p.bytes {
		return true
	}
	if !p.gate.share.TakeRequest(bytes - p.bytes) {
		p.gate.mu.Lock()
		p.gate.refused[inference.ReasonMemory]++
		p.gate.mu.Unlock()
		return false
	}
	p.bytes = bytes
	return true
}

// Enter lets a request of so many bytes in, or says why not: an *Error with ReasonRate, ReasonQueueFull or ReasonMemory. It allocates
// nothing when it lets the request in.
func (g *Gate) Enter(from netip.Addr, bytes int64) (Pass, *inference.Error) {
	bytes = max(0, bytes)
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.enter(g.find(from, now), bytes, now)
}

// EnterQueue lets a request in that comes out of the durable queue: its client was counted when it went in, so the bounds of all count alone.
func (g *Gate) EnterQueue(bytes int64) (Pass, *inference.Error) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.enter(g.queue, max(0, bytes), now)
}

// enter counts a request in. mu is held.
func (g *Gate) enter(c *client, bytes int64, now time.Time) (Pass, *inference.Error) {
	c.arrive(now)
	l := &c.limits
	var e *inference.Error
	switch {
	case l.Rate > 0 && c.tokens < 1:
		after := time.Duration((1 - c.tokens) / l.Rate * float64(time.Second))
		e = &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonRate, RetryAfter: max(after, time.Millisecond),
			Msg: fmt.Sprintf("client %s sends more than the %v requests per second it may send; send it again later", c.who.Name, l.Rate)}
	case l.Concurrency > 0 && c.inside >= l.Concurrency:
		e = &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonRate, RetryAfter: 50 * time.Millisecond,
			Msg: fmt.Sprintf("client %s has %d requests here already, which is what it may have; wait for an answer first", c.who.Name, c.inside)}
	case g.inside.Load() >= int64(g.limits.MaxRequests):
		e = &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonQueueFull, RetryAfter: 100 * time.Millisecond,
			Msg: fmt.Sprintf("%d requests are here already, which is as many as may be; send it again later", g.inside.Load())}
	case g.share != nil && !g.share.TakeRequest(bytes):
		e = &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonMemory, RetryAfter: 100 * time.Millisecond,
			Msg: fmt.Sprintf("the request has %d bytes, and the memory for requests in flight is used up; send it again later, or a smaller one", bytes)}
	}
	if e != nil {
		c.refused++
		g.refused[e.Reason]++
		return Pass{}, e
	}
	if l.Rate > 0 {
		c.tokens--
	}
	c.inside++
	g.inside.Add(1)
	return Pass{gate: g, client: c, bytes: bytes}, nil
}

// find is the client of an address. mu is held.
func (g *Gate) find(from netip.Addr, now time.Time) *client {
	from = from.Unmap().WithZone("")
	for i := range g.limits.Clients {
		if g.limits.Clients[i].Addresses.Contains(from) {
			return g.named[i]
		}
	}
	if from.Is6() { // a network of this size is one subscriber's
		p, _ := from.Prefix(64)
		from = p.Addr()
	}
	if c := g.clients[from]; c != nil {
		return c
	}
	if len(g.clients) >= maxClients {
		g.sweep(now)
	}
	if len(g.clients) >= maxClients {
		return g.rest
	}
	name := "local"
	if from.IsValid() {
		name = from.String()
	}
	c := newClient(name, g.limits.Client)
	g.clients[from] = c
	return c
}

// sweep forgets clients that have been quiet, at most once a second. mu is held.
func (g *Gate) sweep(now time.Time) {
	if now.Sub(g.swept) < time.Second {
		return
	}
	g.swept = now
	for at, c := range g.clients {
		if c.inside == 0 && now.Sub(c.last) > quiet {
			delete(g.clients, at)
		}
	}
}

// arrive counts a request that has come.
func (c *client) arrive(now time.Time) {
	c.requests++
	if c.last.IsZero() {
		c.filled = now
	} else {
		keep := math.Exp(-now.Sub(c.last).Seconds())
		c.rate = c.rate*keep + 1
	}
	c.last = now
	if r := c.limits.Rate; r > 0 {
		c.tokens = min(float64(max(1, c.limits.Burst)), c.tokens+r*now.Sub(c.filled).Seconds())
		c.filled = now
	}
}

// Inside is how many requests are in the house.
func (g *Gate) Inside() int { return int(g.inside.Load()) }

// Report has the clients that were here lately, the busiest first, at most n, and what was refused so far, by reason.
func (g *Gate) Report(n int) (clients []ClientReport, refused map[string]int64) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	refused = make(map[string]int64, len(g.refused))
	for reason, k := range g.refused {
		refused[reason] = k
	}
	add := func(c *client) {
		if !c.last.IsZero() && now.Sub(c.last) < quiet {
			w := c.who.Weight
			if w <= 0 {
				w = 1
			}
			clients = append(clients, ClientReport{Client: c.who.Name, Weight: w, Running: c.inside,
				Rate: c.rate * math.Exp(-now.Sub(c.last).Seconds()), Refused: c.refused})
		}
	}
	for _, c := range g.named {
		add(c)
	}
	for _, c := range g.clients {
		add(c)
	}
	add(g.rest)
	add(g.queue)
	sortClients(clients)
	return clients[:min(n, len(clients))], refused
}
