// race_test.go: whether the race detector is on; it makes sync.Pool forget at random, so allocations are not counted then.

//go:build race

package batch

const raceEnabled = true
