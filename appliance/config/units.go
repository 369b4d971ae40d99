// units.go: sizes and durations as people write them.
package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes, written with a unit: 512MiB.
type Bytes int64

var byteUnits = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// ParseBytes reads a size: a whole number and a unit (B, KiB, MiB, GiB, TiB, or the decimal kB, MB, GB, TB). 0 needs no unit.
func ParseBytes(s string) (Bytes, error) {
	if s == "0" {
		return 0, nil
	}
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(digits, " "), 10, 63)
		if err != nil {
			break
		}
		if n > math.MaxInt64/uint64(u.size) {
			return 0, fmt.Errorf("%q is more bytes than can be counted; write a smaller size", s)
		}
		return Bytes(int64(n) * u.size), nil
	}
	return 0, fmt.Errorf("%q is not a size; write a whole number and a unit, for example 512MiB", s)
}

// String is the size in the largest binary unit that divides it.
func (b Bytes) String() string {
	if b == 0 {
		return "0"
	}
	for _, u := range byteUnits[:4] {
		if int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write a number and a unit, for example 250ms or 30s", s)
	}
	return d, nil
}

// formatDuration is time.Duration's own form without trailing zero units: 1m, not 1m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
