// ledger_test.go: the account is the sum of its entries, and no reservation passes the limit.
package admission

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func limited(bytes, share int64) *Ledger {
	l := NewLedger()
	l.SetLimit(Limit{Bytes: bytes, Source: FromConfiguration, Why: "by memory.limit"}, share)
	return l
}

func TestReserve(t *testing.T) {
	l := limited(1000_000_000, 100_000_000)
	a, err := l.Reserve(Owner{OwnerLoading, "a", 1}, 600_000_000)
	if err != nil {
		t.Fatal(err)
	}
	var short *Short
	if _, err = l.Reserve(Owner{OwnerLoading, "b", 1}, 301_000_000); !errors.As(err, &short) {
		t.Fatal(err)
	}
	if want := "301 MB are needed, and of 1000 MB (by memory.limit) 300 MB are free"; short.Error() != want {
		t.Errorf("%s, want %s", short, want)
	}
	room := l.Room()
	a.Own(Owner{OwnerWorker, "a", 1})
	a.Set(500_000_000, 450_000_000)
	select {
	case <-room:
	default:
		t.Error("nobody was told of the room")
	}
	b, err := l.Reserve(Owner{OwnerLoading, "b", 1}, 301_000_000)
	if err != nil {
		t.Fatal(err)
	}
	owners, free := l.Snapshot()
	var names []string
	for _, o := range owners {
		names = append(names, o.Owner+o.Model)
	}
	if got := strings.Join(names, " "); got != "workera loadingb requests" || free != 99_000_000 || owners[0].Measured != 450_000_000 || owners[0].Peak != 450_000_000 {
		t.Errorf("%s, %d free, %+v", got, free, owners)
	}
	if err := a.Grow(100_000_000); !errors.As(err, &short) || short.Free != 99_000_000 {
		t.Error(err)
	}
	if err := a.Grow(99_000_000); err != nil {
		t.Error(err)
	}
	a.Set(2000_000_000, 2000_000_000) // what is there is booked, even over the limit
	if free, _ := l.Free(); free != 0 {
		t.Error(free)
	}
	if err := a.Grow(0); err != nil {
		t.Error(err)
	}
	for _, e := range []*Entry{a, b, a, b} { // twice
		e.Release()
	}
	a.Set(5, 5)
	if l.Entries() != 0 || l.Booked() != 100_000_000 {
		t.Errorf("%d entries, %d booked", l.Entries(), l.Booked())
	}
}

func TestWithoutALimitNothingIsRefused(t *testing.T) {
	l := NewLedger()
	if _, err := l.Reserve(Owner{}, 1<<50); err != nil {
		t.Fatal(err)
	}
}

func TestRequestShare(t *testing.T) {
	l := limited(1000, 100)
	if !l.TakeRequest(60) || l.TakeRequest(41) || !l.TakeRequest(40) || l.TakeRequest(1) || l.TakeRequest(-1) || !l.TakeRequest(0) {
		t.Error("the share is not kept")
	}
	l.SetLimit(l.Limit(), 50) // over it now
	if l.TakeRequest(0) {
		t.Error("taken from a share that is overdrawn")
	}
	l.GiveRequest(60)
	l.GiveRequest(40)
	if used, share := l.Requests(); used != 0 || share != 50 {
		t.Errorf("%d of %d", used, share)
	}
	if n := testing.AllocsPerRun(100, func() {
		if l.TakeRequest(7) {
			l.GiveRequest(7)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A walk at random by many: after each step of any, what is booked is the sum of the entries, and a reservation never passes the limit.
func TestLedgerWalk(t *testing.T) {
	const limit, share = 10_000, 1_000
	l := limited(limit, share)
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			var mine []*Entry
			for range 2000 {
				switch i := r.IntN(6); {
				case i < 2:
					if e, err := l.Reserve(Owner{Kind: OwnerLoading}, r.Int64N(3000)); err == nil {
						mine = append(mine, e)
					}
				case i == 2 && len(mine) > 0:
					e := mine[r.IntN(len(mine))]
					e.Set(r.Int64N(e.Bytes()+1), 1) // never more, so that the limit can be checked
				case i == 3 && len(mine) > 0:
					_ = mine[r.IntN(len(mine))].Grow(r.Int64N(500)) // refused or not
				case i == 4 && len(mine) > 0:
					j := r.IntN(len(mine))
					mine[j].Release()
					mine = append(mine[:j], mine[j+1:]...)
				default:
					if n := r.Int64N(400); l.TakeRequest(n) {
						if used, _ := l.Requests(); used > share {
							t.Errorf("%d bytes of requests in flight, the share is %d", used, share)
						}
						l.GiveRequest(n)
					}
				}
				l.check(t, limit)
			}
			for _, e := range mine {
				e.Release()
				e.Release()
			}
		})
	}
	wg.Wait()
	if used, _ := l.Requests(); l.Entries() != 0 || l.Booked() != share || used != 0 {
		t.Errorf("left: %d entries, %d booked, %d of requests", l.Entries(), l.Booked(), used)
	}
}

func (l *Ledger) check(t *testing.T, limit int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum int64
	for e := range l.entries {
		sum += e.booked
	}
	if sum != l.booked || sum+l.share.Load() > limit {
		t.Errorf("booked %d, the entries' sum is %d, the limit %d", l.booked, sum, limit)
	}
}

func BenchmarkTakeGive(b *testing.B) {
	l := limited(1<<40, 1<<39)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.TakeRequest(1000) {
				l.GiveRequest(1000)
			}
		}
	})
}
