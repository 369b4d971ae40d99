// flight.go: what a reader sees is on disk, as what a writer is told is.
package storage

import "sync"

// flight is the commit that is under way. bbolt writes a transaction's meta page and syncs it after that; whoever begins to read in between
// sees what a power cut can still take back. So a reader of a transaction newer than the last durable one waits for the end of its commit,
// with the snapshot that it has: at most one fsync, however many commits follow.
type flight struct {
	mu      sync.Mutex
	durable int           // guarded by mu: the newest transaction that is known to be on disk
	landing chan struct{} // guarded by mu: closed when the commit ends, well or not; nil where none is under way
	waits   int           // guarded by mu: how often a reader has waited
}

// begin is called by the writer before its transaction.
func (f *flight) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landing = make(chan struct{})
}

// end is called when the commit has ended; ok: it is on disk.
func (f *flight) end(id int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok {
		f.durable = id
	}
	close(f.landing)
	f.landing = nil
}

// set names the newest transaction of a file that was just opened: opening it ends with an fsync.
func (f *flight) set(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.durable = id
}

// landed waits until it is known whether the transaction that the reader sees is on disk, and says so. False: the commit failed, and the file
// is about to be opened again.
func (f *flight) landed(id int) bool {
	f.mu.Lock()
	landing := f.landing
	if id > f.durable && landing != nil {
		f.waits++
		f.mu.Unlock()
		<-landing
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	return id <= f.durable
}
