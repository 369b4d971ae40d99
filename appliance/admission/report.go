// report.go: what admission tells about itself: GET /v1/admission, inferd top and the metrics all read this.
package admission

import (
	"cmp"
	"slices"
	"time"
)

// Report is a snapshot. Bytes are bytes, durations are in the unit that their name ends with, counters count since the start.
type Report struct {
	Time     time.Time      `json:"time"`
	Limit    LimitReport    `json:"limit"`
	Memory   []OwnerReport  `json:"memory"` // by owner, the largest first
	Free     int64          `json:"free_bytes"`
	Requests RequestsReport `json:"requests"`
	Models   []ModelReport  `json:"models"` // sorted by name and version
	Clients  []ClientReport `json:"clients,omitempty"`
	Pressure PressureReport `json:"pressure"`
	Disk     DiskReport     `json:"disk"`
}

// LimitReport is the memory limit in force and why it is that one.
type LimitReport struct {
	Bytes   int64  `json:"bytes"` // 0: none is known
	Reserve int64  `json:"reserve_bytes"`
	Source  string `json:"source"` // configuration, cgroup v2, cgroup v1, machine or unknown
	Why     string `json:"why"`
	Used    int64  `json:"used_bytes"` // measured, of the core and its workers
}

// OwnerReport is what one owner has of the memory.
type OwnerReport struct {
	Owner    string `json:"owner"` // core, worker, zygote, shared, requests, storage, streams, loading
	Model    string `json:"model,omitempty"`
	Version  int64  `json:"version,omitempty"`
	Booked   int64  `json:"booked_bytes"`
	Measured int64  `json:"measured_bytes,omitempty"`
	Peak     int64  `json:"peak_bytes,omitempty"`
	Limit    int64  `json:"limit_bytes,omitempty"` // of a worker: past it, it is ended
}

// RequestsReport is about all requests together.
type RequestsReport struct {
	Running      int              `json:"running"`
	Waiting      int              `json:"waiting"`
	WaitingBytes int64            `json:"waiting_bytes"`
	InFlight     int64            `json:"in_flight_bytes"` // of the request share
	Share        int64            `json:"share_bytes"`
	Refused      map[string]int64 `json:"refused"` // by reason
}

// ModelReport is about one live version.
type ModelReport struct {
	Model        string           `json:"model"`
	Version      int64            `json:"version"`
	State        string           `json:"state"` // live, parked, loading, restarting
	Pinned       bool             `json:"pinned,omitempty"`
	IdleSeconds  float64          `json:"idle_seconds"`
	Running      int              `json:"running"`
	Waiting      int              `json:"waiting"`
	WaitingBytes int64            `json:"waiting_bytes"`
	WaitMillis   float64          `json:"predicted_wait_ms"` // of a request that would come now
	RunMillis    []RunReport      `json:"runs"`              // by batch size
	Batch        float64          `json:"mean_batch"`        // rows per run, lately
	Rate         float64          `json:"rate"`              // answers per second, lately
	P50Millis    float64          `json:"p50_ms"`            // of answers, lately
	P99Millis    float64          `json:"p99_ms"`
	Answered     int64            `json:"answered"`
	Refused      map[string]int64 `json:"refused,omitempty"` // by reason
	Evictions    int64            `json:"evictions,omitempty"`
}

// RunReport is the predicted time of one run.
type RunReport struct {
	Rows   int64   `json:"rows"`
	Millis float64 `json:"ms"`
}

// ClientReport is about one client that was seen lately.
type ClientReport struct {
	Client  string  `json:"client"`
	Weight  float64 `json:"weight"`
	Running int     `json:"running"`
	Rate    float64 `json:"rate"`
	Refused int64   `json:"refused"`
}

// PressureReport is what the kernel says about memory.
type PressureReport struct {
	Known  bool             `json:"known"` // the kernel tells
	Level  string           `json:"level"` // none, some or high
	Some10 float64          `json:"some_avg10"`
	Full10 float64          `json:"full_avg10"`
	Events map[string]int64 `json:"events,omitempty"` // of memory.events: high, max, oom, oom_kill
}

// DiskReport is about the file system of the state directory.
type DiskReport struct {
	Free    int64 `json:"free_bytes"`
	Floor   int64 `json:"floor_bytes"`
	Refuses bool  `json:"refuses_durable_work"`
}

// sortClients puts the busiest first.
func sortClients(c []ClientReport) {
	slices.SortFunc(c, func(a, b ClientReport) int {
		return cmp.Or(cmp.Compare(b.Running, a.Running), cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Client, b.Client))
	})
}
