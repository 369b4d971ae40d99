// outbox.go: what waits to be written, the one writer, and the reader that is too slow.
package ws

import (
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/inferd/inferd/inference"
)

const (
	// freeOutbox is what an outbox may hold without being booked in the requests' share.
	freeOutbox = 64 << 10
	// chunk is how much is written at once, so that progress is seen.
	chunk = 128 << 10
	// linger is how long a close frame, and what is left of the frame before it, may take to leave, and then how long the other side may take
	// to answer it.
	linger = 5 * time.Second
)

// outbox is guarded by conn.mu.
type outbox struct {
	pending *buffer // frames that nobody writes yet; nil when there are none
	now     []byte  // frames that are being written; they are the writer's
	writing bool
	moved   time.Duration // when a write last began or made progress, by the handler's clock
	booked  int64
	told    bool // that it is slow
	cut     bool // the frames in now are not to be written to their end
	kept    int  // bytes of answers that wait for their turn
}

// size is how many bytes wait.
func (o *outbox) size() int {
	n := len(o.now) + o.kept
	if o.pending != nil {
		n += len(o.pending.b)
	}
	return n
}

// put appends a frame. mu is held.
func (c *conn) put(size int, f func([]byte) []byte) {
	if c.out.pending == nil {
		c.out.pending = takeBuffer()
	}
	p := c.out.pending
	p.b = appendFrame(p.b, size, c.wire.opcode, f)
}

func (c *conn) putControl(op byte, payload []byte) {
	if c.out.pending == nil {
		c.out.pending = takeBuffer()
	}
	p := c.out.pending
	p.b = appendControl(p.b, op, payload)
}

// room waits until so many bytes may be added, and books them. mu is held. It is an error when there is no memory for them; nobody waits for
// room in a connection that ends.
func (c *conn) room(n int) *inference.Error {
	for c.out.size() > c.h.opts.Outbox && !c.closing {
		c.space.Wait()
	}
	if c.h.opts.Memory == nil {
		return nil
	}
	if more := int64(c.out.size()+n-freeOutbox) - c.out.booked; more > 0 {
		if !c.h.opts.Memory.TakeRequest(more) {
			return &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonMemory, RetryAfter: 100 * time.Millisecond,
				Msg: "the answer was made, but there is no memory left to hold it until it is read; read faster, or ask for less at once"}
		}
		c.out.booked += more
	}
	return nil
}

// settle gives back what was booked and is no longer held. mu is held.
func (c *conn) settle() {
	if o := &c.out; o.booked > 0 {
		if less := o.booked - max(0, int64(o.size()-freeOutbox)); less > 0 {
			o.booked -= less
			c.h.opts.Memory.GiveRequest(less)
		}
	}
}

// flush writes what is pending unless somebody does. It is called with mu held and returns without it; it may block as long as the socket
// does.
func (c *conn) flush() {
	o := &c.out
	if o.writing || o.pending == nil || c.gone {
		c.endIfDone()
		c.mu.Unlock()
		return
	}
	o.writing = true
	for o.pending != nil && !c.gone {
		if len(c.flying) > 0 && !c.closing {
			// Answers come in bursts, for requests run in batches: let those that are ready add theirs.
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
		}
		if o.pending == nil {
			break
		}
		c.grant()
		b := o.pending
		o.pending, o.now = nil, b.b
		ends := c.ends
		err := c.write(b.b)
		b.give()
		o.now = nil
		c.settle()
		c.space.Broadcast()
		if err != nil {
			c.drop()
			break
		}
		if ends { // the close frame was among them
			c.closed = true
			if half, ok := c.net.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite() // who waits for our end need not wait until theirs was read
			}
		}
	}
	o.writing, o.told = false, false
	c.endIfDone()
	c.mu.Unlock()
}

// flushLater is flush for who may not block. mu is held, and still when it returns.
func (c *conn) flushLater() {
	if !c.out.writing && c.out.pending != nil && !c.gone {
		go func() {
			c.mu.Lock()
			c.flush()
		}()
	}
}

// write puts b on the socket, chunk by chunk. mu is held when it is called and when it returns, and not between. When the connection was
// given up meanwhile, the frame that is on its way is ended, and the frames after it are not begun.
func (c *conn) write(b []byte) error {
	o := &c.out
	end := len(b)
	for at := 0; at < end; {
		o.moved = c.h.now()
		if o.cut {
			o.cut, end = false, frameEnd(b, at)
			if at == end {
				break
			}
			_ = c.net.SetWriteDeadline(time.Now().Add(linger)) // it was in the past
		}
		to := min(end, at+chunk)
		c.mu.Unlock()
		n, err := c.net.Write(b[at:to])
		c.mu.Lock()
		at += n
		if err != nil && (!o.cut || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
	}
	if o.cut {
		o.cut = false
		_ = c.net.SetWriteDeadline(time.Now().Add(linger))
	}
	return nil
}

// grant gives credits back, with the answers that are about to be written: when the client has few left, and else when they are many.
// mu is held.
func (c *conn) grant() {
	few := max(1, c.h.opts.Credits/4)
	if c.back == 0 || c.closing || c.back < few && c.left > few {
		return
	}
	n := c.back
	c.left, c.back = c.left+n, 0
	c.put(16, func(b []byte) []byte { return c.wire.appendCredits(b, n) })
}

// tell says that the reader is slow, before anything else that waits. mu is held.
func (c *conn) tell(left time.Duration) {
	o := &c.out
	if o.told || c.closing {
		return
	}
	o.told = true
	c.h.stats.slow.Add(1)
	waiting := o.size()
	rest := o.pending
	o.pending = nil
	c.put(64, func(b []byte) []byte { return c.wire.appendSlow(b, waiting, left) })
	if rest != nil {
		o.pending.b = append(o.pending.b, rest.b...)
		rest.give()
	}
}
