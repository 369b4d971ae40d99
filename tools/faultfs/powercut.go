// powercut.go: what a power cut may leave of what was written since the last fsync.
package faultfs

import (
	"math/rand/v2"
)

// sector is what a disk writes whole, or tears.
const sector = 512

// Files makes up files as a power cut may leave them: what the last fsync made durable, and of what came after it any sectors, the others
// old or torn.
type Files struct {
	Name    string
	durable []byte
	since   []Op
	size    int // as the process sees it
}

// Do follows one request for the file; those for others are passed over.
func (c *Files) Do(op Op) {
	if op.Name != c.Name {
		return
	}
	switch op.Kind {
	case Write:
		c.since = append(c.since, op)
		c.size = max(c.size, int(op.Off)+len(op.Data))
	case Truncate:
		c.since = append(c.since, op)
		c.size = int(op.Off)
	case Sync:
		c.durable, c.since = apply(c.durable, c.since), nil
	}
}

// Pending is how many sectors are written and not durable.
func (c *Files) Pending() (sectors int) {
	for _, op := range c.since {
		sectors += (len(op.Data) + sector - 1) / sector
	}
	return sectors
}

// Whole is the file as the process sees it: what a kill leaves.
func (c *Files) Whole() []byte { return apply(c.durable, c.since) }

// Cut is a file that a power cut may leave now.
func (c *Files) Cut(r *rand.Rand) []byte { return Subset(r, c.durable, c.since, c.size) }

func apply(durable []byte, ops []Op) []byte {
	out := append([]byte{}, durable...)
	for _, op := range ops {
		out = resize(out, int(op.Off)+len(op.Data), op.Kind == Truncate)
		copy(out[op.Off:], op.Data)
	}
	return out
}

// resize gives b the size, or at least that.
func resize(b []byte, size int, cut bool) []byte {
	if size > len(b) {
		return append(b, make([]byte, size-len(b))...)
	}
	if cut {
		return b[:size]
	}
	return b
}

// Subset is durable with a random part of the sectors that ops write, in their order, some of them torn: the beginning new and the rest as
// it was. The size is the old one or the new one, size, unless a sector lies beyond.
func Subset(r *rand.Rand, durable []byte, ops []Op, size int) []byte {
	out := append([]byte{}, durable...)
	if r.IntN(2) == 0 {
		out = resize(out, size, true)
	}
	// How much of it went through differs from cut to cut: mostly all, mostly nothing, or anything between.
	share := r.Float64()
	if r.IntN(4) == 0 {
		share = 1 - share/100
	}
	for _, op := range ops {
		if op.Kind != Write {
			continue
		}
		for from := 0; from < len(op.Data); {
			n := min(sector-(int(op.Off)+from)%sector, len(op.Data)-from)
			part := op.Data[from : from+n]
			at := int(op.Off) + from
			from += n
			if r.Float64() >= share {
				continue
			}
			if r.IntN(16) == 0 {
				part = part[:r.IntN(len(part))]
			}
			out = resize(out, at+n, false)
			copy(out[at:], part)
		}
	}
	return out
}
