// writer.go: the one goroutine that writes: files, their ends, and what a disk does not take.
package reqlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/inferd/inferd/inference/savedmodel"
)

const (
	flushEvery = time.Second
	flushBytes = 64 << 10
	maxOpen    = 64              // files; past it the one that is open for longest is finished
	tryAgain   = 5 * time.Second // after the disk did not take something
	forgiven   = time.Minute     // after that without another fault it counts as well again, though nobody may have tried
	part       = ".part"         // ends the name of a file that is being written
)

// extension of a finished file.
func (f Format) extension() string {
	if f == TFRecord {
		return ".tfrecord"
	}
	return ".jsonl"
}

// writer is owned by Run.
type writer struct {
	*Log
	open   map[key]*file
	closed []finished // oldest first
	total  int64      // bytes of both
	made   int        // files, for their names
	down   time.Time  // nothing is written until then
	failed bool       // Trouble was told of an error
}

// key names the file that a record goes to.
type key struct {
	model  string
	format Format
}

// file is being written.
type file struct {
	key     key
	f       *os.File
	name    string // with part
	since   time.Time
	buf     []byte // records that are not in the file yet
	waiting int    // how many
	size    int64  // of the file
	records int    // in both
}

// finished is a file under its final name.
type finished struct {
	name string
	size int64
	at   time.Time
}

// Run finishes what the life before left, and then writes until ctx ends and everything that waits is written. It is called once.
func (l *Log) Run(ctx context.Context) error {
	w := &writer{Log: l, open: make(map[key]*file)}
	w.recover()
	w.tell()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-l.entries:
			w.add(e)
		case <-tick.C:
			w.look(time.Now())
		case <-ctx.Done():
			for {
				select {
				case e := <-l.entries:
					w.add(e)
					continue
				default:
				}
				w.close()
				w.tell()
				return nil
			}
		}
	}
}

// add takes one record.
func (w *writer) add(e entry) {
	n := int64(len(e.data))
	defer w.waiting.Add(-n)
	now := time.Now()
	if now.Before(w.down) {
		w.drop(Disk, 1)
		return
	}
	if err := w.opts.Room(); err != nil {
		w.fail(err)
		w.drop(Disk, 1)
		return
	}
	if !w.make(n) {
		w.drop(Full, 1)
		return
	}
	k := key{e.model, e.format}
	f := w.open[k]
	if f == nil {
		var err error
		if f, err = w.begin(k, now); err != nil {
			w.fail(err)
			w.drop(Disk, 1)
			return
		}
	}
	f.buf = append(f.buf, e.data...)
	f.waiting++
	f.records++
	w.total += n
	if len(f.buf) >= flushBytes {
		w.flush(f)
	}
	if f.size+int64(len(f.buf)) >= w.opts.FileBytes || f.key.format == TFRecord && f.records == savedmodel.MaxWarmupRecords {
		w.finish(f)
	}
	w.tell()
}

// look is what is due whether records come or not.
func (w *writer) look(now time.Time) {
	for _, f := range w.open {
		w.flush(f)
		if now.Sub(f.since) >= w.opts.FileAge {
			w.finish(f)
		}
	}
	for len(w.closed) > 0 && now.Sub(w.closed[0].at) >= w.opts.MaxAge {
		w.remove()
	}
	w.make(0)
	if w.failed && now.Sub(w.down) >= forgiven {
		w.heal()
	}
	w.tell()
}

// make makes room for n more bytes by removing the oldest files, and reports whether there is some.
func (w *writer) make(n int64) bool {
	for w.total+n > w.opts.MaxBytes {
		if len(w.closed) == 0 {
			f := w.oldest()
			if f == nil {
				return false
			}
			w.finish(f)
			continue
		}
		w.remove()
	}
	return true
}

func (w *writer) oldest() *file {
	var oldest *file
	for _, f := range w.open {
		if oldest == nil || f.since.Before(oldest.since) {
			oldest = f
		}
	}
	return oldest
}

// remove removes the oldest finished file. One that cannot be removed is not counted any more.
func (w *writer) remove() {
	f := w.closed[0]
	w.closed = w.closed[1:]
	w.total -= f.size
	if err := os.Remove(f.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.opts.Log.Warn("old request log was not removed", "path", f.name, "err", err)
	}
	_ = os.Remove(filepath.Dir(f.name)) // when it was the last one
}

// begin opens a file.
func (w *writer) begin(k key, now time.Time) (*file, error) {
	if len(w.open) >= maxOpen {
		w.finish(w.oldest())
	}
	dir := filepath.Join(w.opts.Dir, k.model)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w.made++
	name := filepath.Join(dir, fmt.Sprintf("%s-%d%s%s", now.UTC().Format("20060102T150405.000"), w.made, k.format.extension(), part))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	one := &file{key: k, f: f, name: name, since: now}
	w.open[k] = one
	return one, nil
}

// flush writes what waits in the file's buffer, or loses it.
func (w *writer) flush(f *file) {
	if len(f.buf) == 0 {
		return
	}
	n, err := f.f.Write(f.buf)
	if err != nil {
		w.lose(f, err, n)
		return
	}
	f.size += int64(n)
	w.written.Add(int64(f.waiting))
	f.buf, f.waiting = f.buf[:0], 0
	w.heal()
}

// lose gives up what the file's buffer holds, of which n bytes were written, and ends the file with what it had before.
func (w *writer) lose(f *file, err error, n int) {
	w.fail(err)
	w.drop(Disk, int64(f.waiting))
	w.total -= int64(len(f.buf))
	f.records -= f.waiting
	f.buf, f.waiting = nil, 0
	if n > 0 && f.f.Truncate(f.size) != nil { // the next start cuts it, unless it is too old by then
		_ = f.f.Close()
		delete(w.open, f.key)
		w.closed = append(w.closed, finished{f.name, f.size, time.Now()})
		return
	}
	w.finish(f)
}

// finish closes the file and gives it its final name; one without records goes.
func (w *writer) finish(f *file) {
	w.flush(f)
	if w.open[f.key] != f { // it was lost, and that has finished it
		return
	}
	delete(w.open, f.key)
	err := f.f.Close()
	name := f.name[:len(f.name)-len(part)]
	switch {
	case f.size == 0:
		_ = os.Remove(f.name)
		return
	case err == nil:
		err = os.Rename(f.name, name)
	}
	if err != nil {
		w.fail(err)
		name = f.name // its records are there, and the next start finishes it
	}
	w.closed = append(w.closed, finished{name, f.size, time.Now()})
}

func (w *writer) close() {
	for _, f := range w.open {
		w.finish(f)
	}
}

// fail tells of an error, and leaves the disk alone for a while.
func (w *writer) fail(err error) {
	w.down = time.Now().Add(tryAgain)
	w.failed = true
	w.opts.Trouble(err)
}

// heal tells that the disk takes records again.
func (w *writer) heal() {
	w.down = time.Time{}
	if w.failed {
		w.failed = false
		w.opts.Trouble(nil)
	}
}

// tell keeps the figure for Stats.
func (w *writer) tell() { w.bytes.Store(w.total) }
