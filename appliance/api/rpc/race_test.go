// race_test.go: tells tests that the race detector is on.

//go:build race

package rpc

const raceEnabled = true
