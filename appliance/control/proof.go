// proof.go: what was measured of a version before it went live, as JSON.
package control

// Proof is what the runs before a version went live have shown.
type Proof struct {
	LoadMicros    int64                     `json:"load_micros"`               // from the load's begin to the end of these runs
	Unproven      string                    `json:"unproven,omitempty"`        // why the version was not shown to work
	LoadPeakBytes int64                     `json:"load_peak_bytes,omitempty"` // the most memory that the worker used while it loaded
	PeakBytes     int64                     `json:"peak_bytes,omitempty"`      // the most during these runs
	RestBytes     int64                     `json:"rest_bytes,omitempty"`      // after them
	Signatures    map[string]SignatureProof `json:"signatures"`
}

// SignatureProof is what they have shown of one signature.
type SignatureProof struct {
	LargestBatch          int64           `json:"largest_batch"`                     // that ran on made-up inputs; 0: none did
	RunMicros             map[int64]int64 `json:"run_micros,omitempty"`              // by batch size
	MemoryBytes           int64           `json:"memory_bytes,omitempty"`            // that the worker used after the largest run
	Recorded              int             `json:"recorded,omitempty"`                // recorded requests that were replayed
	SlowestRecordedMicros int64           `json:"slowest_recorded_micros,omitempty"` // of these
	Golden                int             `json:"golden,omitempty"`                  // golden cases that gave what they should
	Reason                string          `json:"reason,omitempty"`                  // why nothing was made up for it
	Limit                 string          `json:"limit,omitempty"`                   // why no larger batch was tried
	Warnings              []string        `json:"warnings,omitempty"`
}
