// copied.go: the account of tensor bytes that were copied.
package tensor

import "sync/atomic"

// countedFrom is the size from which a copy is counted: a smaller one costs less than the counting.
const countedFrom = 4 << 10

var copied atomic.Int64

// CountCopy books a copy of n bytes of tensors, or of a message that holds them. Whoever copies them says so here: it is what the check of copies
// per request reads.
func CountCopy(n int) {
	if n >= countedFrom {
		copied.Add(int64(n))
	}
}

// Copied is the bytes of all copies of 4 KiB and more that this process has made of tensors.
func Copied() int64 { return copied.Load() }
