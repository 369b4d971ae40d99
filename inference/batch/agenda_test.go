// agenda_test.go: the agenda against a list.
package batch

import (
	"math/rand/v2"
	"testing"
	"time"
)

type booked struct {
	rank rank
	due  time.Duration
	work float64
	at   place
}

// Whatever is added and removed while time goes by, what goes before a request is at least what is due before its slot and at most what is due
// by the end of it; and when all is removed nothing is left.
func TestAgendaIsAList(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		a, now, list := newAgenda(), time.Duration(0), []booked(nil)
		for range 3000 {
			switch rng.IntN(4) {
			case 0:
				now += time.Duration(rng.Int64N(int64([]time.Duration{ms, 50 * ms, 2 * time.Second, 90 * time.Second}[rng.IntN(4)])))
				a.advance(now)
			case 1:
				if len(list) > 0 {
					i := rng.IntN(len(list))
					a.remove(list[i].rank, list[i].due, list[i].work, list[i].at)
					list[i] = list[len(list)-1]
					list = list[:len(list)-1]
				}
			default:
				e := booked{rank: rank(rng.IntN(ranks)), work: float64(rng.IntN(1000)), due: never}
				if rng.IntN(5) > 0 {
					e.due = now + time.Duration(rng.Int64N(int64([]time.Duration{20 * ms, time.Second, time.Minute, time.Hour}[rng.IntN(4)])))
				}
				e.at = a.add(e.rank, e.due, e.work)
				list = append(list, e)
			}
			at, due := rank(rng.IntN(ranks)), now+time.Duration(rng.Int64N(int64(3*time.Second)))
			least, most := 0.0, 0.0
			for _, e := range list {
				if e.rank > at {
					continue
				}
				if e.rank < at || e.due <= due-fineWidth && e.at == fine || e.due <= due-coarseWidth && e.at != far {
					least += e.work
				}
				if e.rank < at || e.due <= due+coarseWidth {
					most += e.work
				}
			}
			if got := a.ahead(at, due); got < least-1e-3 || got > most+1e-3 {
				t.Fatalf("seed %d: %v ahead of rank %v due %v at %v; want %v to %v", seed, got, at, due, now, least, most)
			}
		}
		for _, e := range list {
			a.remove(e.rank, e.due, e.work, e.at)
		}
		if !a.empty() {
			t.Fatalf("seed %d: %v left", seed, a.total)
		}
	}
}

func TestAgendaDelays(t *testing.T) {
	covers := func(at time.Duration) float64 { return float64(at) } // one slot, from time 0
	for name, c := range map[string]struct {
		later []time.Duration // due, each with 10ms of work
		work  time.Duration
		want  bool
	}{
		"nothing later":          {nil, 50 * ms, false},
		"room for it":            {[]time.Duration{100 * ms}, 50 * ms, false},
		"would be late":          {[]time.Duration{60 * ms}, 60 * ms, true},
		"the last would be late": {[]time.Duration{60 * ms, 70 * ms, 74 * ms, 75 * ms}, 40 * ms, true},
		"late already":           {[]time.Duration{4 * ms}, 50 * ms, false},
		"far enough":             {[]time.Duration{5 * time.Second}, 50 * ms, false},
		"coarse":                 {[]time.Duration{5 * time.Second}, 6 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgenda()
			for _, due := range c.later {
				a.add(2, due, float64(10*ms))
			}
			if got := a.delays(2, 0, float64(c.work), 0, covers); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
