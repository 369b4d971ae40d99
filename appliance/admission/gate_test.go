// gate_test.go: who is let in, by count, rate and memory.
package admission

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
)

type purse struct{ left int64 }

func (p *purse) TakeRequest(n int64) bool {
	if n > p.left {
		return false
	}
	p.left -= n
	return true
}
func (p *purse) GiveRequest(n int64) { p.left += n }

var home, away = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7")

func refusedFor(t *testing.T, g *Gate, from netip.Addr, bytes int64, reason string) {
	t.Helper()
	_, e := g.Enter(from, bytes)
	if e == nil || e.Reason != reason || e.RetryAfter <= 0 || e.Msg == "" {
		t.Errorf("got %+v, want a refusal for %s", e, reason)
	}
}

func enter(t *testing.T, g *Gate, from netip.Addr, bytes int64) Pass {
	t.Helper()
	p, e := g.Enter(from, bytes)
	if e != nil {
		t.Fatal(e)
	}
	return p
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{Client: ClientLimits{Rate: 10, Burst: 3}}, nil)
		for range 3 {
			p := enter(t, g, home, 0)
			p.Leave()
		}
		refusedFor(t, g, home, 0, inference.ReasonRate)
		p := enter(t, g, away, 0) // another one's count
		p.Leave()
		time.Sleep(100 * time.Millisecond)
		p = enter(t, g, home, 0)
		p.Leave()
		refusedFor(t, g, home, 0, inference.ReasonRate)
		time.Sleep(time.Hour)
		for range 3 {
			p := enter(t, g, home, 0)
			p.Leave()
		}
		refusedFor(t, g, home, 0, inference.ReasonRate)
		if clients, refused := g.Report(10); len(clients) != 1 || clients[0].Refused != 3 || refused[inference.ReasonRate] != 3 {
			t.Errorf("reports %+v, %v", clients, refused)
		}
	})
}

func TestConcurrencyCountAndMemory(t *testing.T) {
	share := &purse{left: 100}
	g := NewGate(Limits{MaxRequests: 3, Client: ClientLimits{Concurrency: 2}}, share)
	a, b := enter(t, g, home, 60), enter(t, g, home, 0)
	refusedFor(t, g, home, 0, inference.ReasonRate)
	refusedFor(t, g, away, 41, inference.ReasonMemory)
	c := enter(t, g, away, 40)
	refusedFor(t, g, away, 0, inference.ReasonQueueFull)
	a.Leave()
	a.Leave()
	if g.Inside() != 2 || share.left != 60 {
		t.Errorf("%d inside, %d bytes left", g.Inside(), share.left)
	}
	b.Leave()
	c.Leave()
	if g.Inside() != 0 || share.left != 100 {
		t.Errorf("%d inside, %d bytes left", g.Inside(), share.left)
	}
}

func TestClients(t *testing.T) {
	g := NewGate(Limits{Clients: []NamedClient{{Name: "line", Addresses: netip.MustParsePrefix("192.0.2.0/24"), ClientLimits: ClientLimits{Weight: 4}}}}, nil)
	name := func(addr string) string {
		a := netip.Addr{}
		if addr != "" {
			a = netip.MustParseAddr(addr)
		}
		p := enter(t, g, a, 0)
		defer p.Leave()
		return fmt.Sprint(p.Client().Name, " ", p.Client().Weight)
	}
	for addr, want := range map[string]string{
		"192.0.2.9": "line 4", "::ffff:192.0.2.77": "line 4", "198.51.100.7": "198.51.100.7 0", "": "local 0",
		"2001:db8::1": "2001:db8:: 0", "2001:db8::ffff:1": "2001:db8:: 0", "fe80::1%eth0": "fe80:: 0",
	} {
		if got := name(addr); got != want {
			t.Errorf("%s is %q, want %q", addr, got, want)
		}
	}
	a, b := enter(t, g, home, 0), enter(t, g, home, 0)
	if a.Client() != b.Client() {
		t.Error("one client is two")
	}
	g.Set(Limits{}) // a reload does not lose those who are inside
	a.Leave()
	b.Leave()
	if g.Inside() != 0 {
		t.Errorf("%d inside", g.Inside())
	}
}

// A reload that is about something else forgives nobody, and one that changes a limit counts from what is there.
func TestSetKeepsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := func(concurrency int, weight float64) Limits {
			return Limits{Client: ClientLimits{Rate: 1, Burst: 2}, Clients: []NamedClient{{Name: "line", Addresses: netip.PrefixFrom(home, 32), ClientLimits: ClientLimits{Weight: weight, Concurrency: concurrency}}}}
		}
		g := NewGate(limits(2, 1), nil)
		a, b := enter(t, g, home, 0), enter(t, g, home, 0)
		for range 2 {
			p := enter(t, g, away, 0)
			p.Leave()
		}
		g.Set(limits(2, 1))
		refusedFor(t, g, home, 0, inference.ReasonRate)
		refusedFor(t, g, away, 0, inference.ReasonRate)
		g.Set(limits(3, 1))
		c := enter(t, g, home, 0)
		if c.Client() != a.Client() {
			t.Error("a client is another one after a reload")
		}
		refusedFor(t, g, home, 0, inference.ReasonRate)
		g.Set(limits(3, 2))
		if d := enter(t, g, home, 0); d.Client().Weight != 2 || a.Client().Weight != 1 {
			t.Errorf("weights %v, %v", d.Client().Weight, a.Client().Weight)
		}
		for _, p := range []Pass{a, b, c} {
			p.Leave()
		}
		if g.Inside() != 1 {
			t.Errorf("%d inside", g.Inside())
		}
	})
}

// However many addresses come, the table is bounded, and those who are quiet make room.
func TestManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{}, nil)
		for i := range 3 * maxClients {
			p := enter(t, g, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 0)
			p.Leave()
		}
		if len(g.clients) != maxClients {
			t.Errorf("%d clients", len(g.clients))
		}
		time.Sleep(2 * quiet)
		p := enter(t, g, away, 0)
		if p.Leave(); len(g.clients) != 1 {
			t.Errorf("%d clients after a quiet time", len(g.clients))
		}
	})
}

func TestGateAllocatesNothing(t *testing.T) {
	g := NewGate(Limits{Client: ClientLimits{Rate: 1e9, Burst: 1e6, Concurrency: 5}}, &purse{left: 1 << 40})
	if n := testing.AllocsPerRun(1000, func() {
		p, e := g.Enter(home, 1000)
		if e != nil {
			t.Fatal(e)
		}
		p.Leave()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestGateUnderLoad(t *testing.T) {
	g := NewGate(Limits{MaxRequests: 5}, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 2000 {
				if p, e := g.Enter(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}), 1); e == nil {
					if n := g.Inside(); n > 5 {
						t.Errorf("%d inside", n)
					}
					p.Leave()
				}
			}
		})
	}
	wg.Wait()
	if g.Inside() != 0 {
		t.Errorf("%d inside", g.Inside())
	}
}

func BenchmarkGate(b *testing.B) {
	g := NewGate(Limits{Client: ClientLimits{Rate: 1e9, Burst: 1e9}}, nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, e := g.Enter(home, 1000)
			if e != nil {
				b.Fatal(e)
			}
			p.Leave()
		}
	})
}

// TestQueueIsNoClient: what comes out of the queue is held to the bounds of all, and to no client's.
func TestQueueIsNoClient(t *testing.T) {
	g := NewGate(Limits{MaxRequests: 2, Client: ClientLimits{Rate: 1, Burst: 1, Concurrency: 1}}, nil)
	var in []Pass
	for range 2 {
		p, err := g.EnterQueue(10)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, p)
	}
	if _, err := g.EnterQueue(10); err == nil || err.Reason != inference.ReasonQueueFull {
		t.Errorf("a third of two: %v", err)
	}
	for i := range in {
		in[i].Leave()
	}
	if n := g.Inside(); n != 0 {
		t.Errorf("%d are inside", n)
	}
	if p, err := g.Enter(netip.Addr{}, 0); err != nil {
		t.Errorf("a local client pays for the queue: %v", err)
	} else {
		p.Leave()
	}
}
