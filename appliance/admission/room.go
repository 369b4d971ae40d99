// room.go: memory that a request inside turns out to need beside what it came with.
package admission

import "github.com/inferd/inferd/inference"

// Room is memory of the requests' share that is taken beyond what passes hold. The zero Room takes nothing, and lets everybody have it.
type Room struct {
	gate  *Gate
	bytes int64
}

// Room is an empty one. g may be nil.
func (g *Gate) Room() Room { return Room{gate: g} }

// Take takes bytes more, or reports that they are not there, which counts as a refusal for memory.
func (r *Room) Take(bytes int64) bool {
	if r.gate == nil || r.gate.share == nil || bytes <= 0 {
		return true
	}
	if !r.gate.share.TakeRequest(bytes) {
		r.gate.mu.Lock()
		r.gate.refused[inference.ReasonMemory]++
		r.gate.mu.Unlock()
		return false
	}
	r.bytes += bytes
	return true
}

// Leave gives everything back. Calling it again does nothing.
func (r *Room) Leave() {
	if r.bytes > 0 {
		r.gate.share.GiveRequest(r.bytes)
		r.bytes = 0
	}
}
