// norace_test.go: tells tests that the race detector is off.

//go:build !race

package rpc

const raceEnabled = false
