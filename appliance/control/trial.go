// trial.go: a version on probation, as data.
package control

import "time"

// Trial is a model's new version, watched against the one that it shall replace.
type Trial struct {
	Version  int64       `json:"version"`
	Against  int64       `json:"against"`
	Loaded   bool        `json:"against_loaded"` // going back needs no load
	Begun    time.Time   `json:"begun"`
	Since    time.Time   `json:"since"`              // of the step, or of inferd's start
	Ends     time.Time   `json:"ends"`               // the step, if nothing happens
	Requests int64       `json:"requests,omitempty"` // that end the step earlier
	Share    float64     `json:"share"`              // of the requests that name no version
	Step     int         `json:"step,omitempty"`     // of a canary, from 1
	Steps    int         `json:"steps,omitempty"`
	New      TrialCounts `json:"new"`
	Old      TrialCounts `json:"old"` // from before the trial, unless both share the requests
}

// TrialCounts are what one of the two has come to.
type TrialCounts struct {
	Requests    int64   `json:"requests"`
	Failed      int64   `json:"failed"`
	Refused     int64   `json:"refused"` // the graph found the input wrong
	Checked     int64   `json:"checked"` // answers that were looked through
	NaN         int64   `json:"nan"`     // of these
	Deaths      int     `json:"deaths"`  // of the worker
	RunMillis   float64 `json:"run_ms,omitempty"`
	MemoryBytes int64   `json:"memory_bytes,omitempty"`
}
