// statusproof.go: what was measured of a version before it went live, for the status.
package appliance

import (
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/updater"
)

func proofOf(v updater.VersionStatus) *control.Proof {
	p := &control.Proof{LoadMicros: v.LoadTook.Microseconds(), Unproven: v.Proof.Unproven, Signatures: make(map[string]control.SignatureProof),
		LoadPeakBytes: v.Proof.LoadPeak, PeakBytes: v.Proof.Peak, RestBytes: v.Proof.Rest}
	for key, s := range v.Proof.Signatures {
		out := control.SignatureProof{
			LargestBatch: s.Largest, MemoryBytes: s.Memory, Recorded: s.Recorded, SlowestRecordedMicros: s.Slowest.Microseconds(), Golden: s.Golden,
			Reason: s.Reason, Limit: s.Limit, Warnings: s.Warnings,
		}
		for n, took := range s.Times {
			if out.RunMicros == nil {
				out.RunMicros = make(map[int64]int64)
			}
			out.RunMicros[n] = took.Microseconds()
		}
		p.Signatures[key] = out
	}
	return p
}
