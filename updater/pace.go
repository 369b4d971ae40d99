// pace.go: reading a version's files through without being in the way of what serves.
package updater

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	paceRest = 4                     // how much longer a paced reader rests than it works: a fifth of one processor is what it takes
	maxRest  = 50 * time.Millisecond // a disk that is slow needs no rest
)

// reader reads a file in the pieces that it is asked for and stops when ctx ends. Paced, it rests between them for a multiple of what the
// piece has taken, the use that the caller makes of it included. Not by a thread of low priority: while other processes keep the processors
// busy, such a thread would hold up every collection of garbage, and with it the whole core (measured: for 3 seconds).
type reader struct {
	ctx   context.Context
	f     *os.File
	paced bool
	began time.Time // when the piece was begun that the caller has now
}

// newReader prepares f, which is read from its beginning to its end.
func newReader(ctx context.Context, f *os.File, paced bool) *reader {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL) // a hint
	return &reader{ctx: ctx, f: f, paced: paced}
}

func (r *reader) Read(p []byte) (int, error) {
	if r.paced && !r.began.IsZero() {
		select {
		case <-time.After(min(maxRest, paceRest*time.Since(r.began))):
		case <-r.ctx.Done():
		}
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	r.began = time.Now()
	return r.f.Read(p)
}

// serving reports whether any version of any model is live.
func (l *loop) serving() bool {
	for _, m := range l.models {
		for _, v := range m.versions {
			if v.state == StateLive {
				return true
			}
		}
	}
	return false
}
