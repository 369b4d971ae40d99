// norace_test.go: tells tests whether the race detector, which allocates, is on.

//go:build !race

package rest

const raceEnabled = false
