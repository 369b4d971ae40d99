// evict_test.go: who gives way, and the floor of the disk.
package admission

import (
	"strings"
	"testing"
	"time"
)

func TestVictim(t *testing.T) {
	idle := func(s int) Idler { return Idler{Idle: time.Duration(s) * time.Second, Bytes: 1} }
	busy, pinned, parked, empty := idle(99), idle(99), idle(99), idle(99)
	busy.Busy, pinned.Pinned, parked.Parked, empty.Bytes = true, true, true, 0
	for _, c := range []struct {
		name string
		all  []Idler
		want int
	}{
		{"nobody", nil, -1},
		{"the longest idle", []Idler{idle(1), idle(3), idle(2)}, 1},
		{"the first of two", []Idler{idle(3), idle(3)}, 0},
		{"none may", []Idler{busy, pinned, parked, empty}, -1},
		{"one may", []Idler{busy, pinned, idle(0), parked, empty}, 2},
	} {
		if got := Victim(c.all); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestDisk(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		free, whole, configured, floor int64
		refuses                        bool
	}{
		{100 * mb, 100_000 * mb, 0, 256 * mb, true},
		{257 * mb, 100_000 * mb, 0, 256 * mb, false},
		{40 * mb, 1000 * mb, 0, 50 * mb, true},
		{40 * mb, 1000 * mb, 10 * mb, 10 * mb, false},
		{0, 0, 0, 0, false}, {0, 0, 10 * mb, 10 * mb, false},
	} {
		d := NewDisk(c.free, c.whole, c.configured)
		if d.Floor != c.floor || d.Refuses() != c.refuses || d.Report().Refuses != c.refuses || !strings.Contains(d.String(), "state.disk_floor") {
			t.Errorf("%+v: %+v %v", c, d, d.Refuses())
		}
	}
}
