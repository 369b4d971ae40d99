// clients.go: whether a client that asks for far more than its share takes anything from one that does not.
package main

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/loadgen"
	"github.com/inferd/inferd/tools/measure"
)

const (
	greed   = 100 // times its share is what the one client asks for,
	modesty = 0.8 // of its share the other
)

// clients has two clients, which are two loopback addresses to inferd, ask for a model that can do half for each.
func (b *bench) clients() error {
	s, err := b.startBusy(1<<10, false)
	if err != nil {
		return err
	}
	defer s.stop()
	each := max(b.each, 6*time.Second)
	peak, err := s.peak(each)
	if err != nil {
		return err
	}
	share, deadline := peak/2, patience(peak)
	greedy, modest := poisson(greed*share, deadline, settles, each), poisson(modesty*share, deadline, settles, each)
	greedy.From, modest.From, modest.Seed = net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 3), 1
	fmt.Printf("  the peak is %.0f/s, so a share is %.0f/s; one client asks %.0f/s, the other %.0f/s, with %v each\n", peak, share, greed*share, modesty*share, deadline)
	var beside fate
	var rest []float64
	r, err := measure.Pairs("goodput of a client below its share beside one at 100 times / alone", "/s", 0.9, b.n,
		func() (float64, error) {
			var other loadgen.Step
			var failed error
			var wg sync.WaitGroup
			wg.Go(func() { other, failed = s.load(greedy) })
			own, err := s.load(modest)
			wg.Wait()
			if err == nil {
				err = failed
			}
			beside.add(&own)
			rest = append(rest, other.Goodput)
			return own.Goodput, err
		},
		func() (float64, error) {
			own, err := s.load(modest)
			return own.Goodput, err
		})
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	fmt.Printf("  the client below its share: %s; the other's goodput was %.0f/s\n", &beside, measure.Median(rest))
	return nil
}
