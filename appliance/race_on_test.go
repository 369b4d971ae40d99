//go:build race

package appliance

// raceEnabled says that the race detector's own memory is in every process.
const raceEnabled = true
