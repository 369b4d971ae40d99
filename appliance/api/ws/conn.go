// conn.go: one connection: how it begins, what its reader does, and how it ends.
package ws

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// maxBad is how many frames in a row may be such that nothing can be made of them.
const maxBad = 16

// conn is one connection.
type conn struct {
	// immutable after begin
	h       *Handler
	ws      *websocket.Conn
	net     net.Conn
	wire    wire
	from    netip.Addr
	keys    keys
	holder  *access.Grant // what the client may do
	ending  chan struct{} // closed when no more is answered
	session string        // changed by a resume, before anybody but the reader looks at it

	opening sync.Mutex   // of the session; before mu
	relay   atomic.Bool  // who reads is serving, and is to be relieved if that takes long
	heard   atomic.Int64 // when something last came, by the handler's clock

	// owned by who reads
	fault     int // the close code of what gorilla/websocket found wrong, 0 when it has not
	faultText string
	in        *bufio.Reader // gorilla/websocket's
	late      *time.Timer   // has somebody else go on reading
	single    int           // how many requests in a row came while there was nothing else

	mu      sync.Mutex
	space   sync.Cond          // of mu; the outbox has become smaller, or the connection ends
	flying  map[string]*flight // guarded by mu; requests without an answer, by id
	lives   map[string]*live   // guarded by mu
	order   order              // guarded by mu
	left    int                // guarded by mu; credits that the client has
	back    int                // guarded by mu; credits to be given back to it
	bad     int                // guarded by mu; frames in a row
	begun   bool               // guarded by mu; a frame has come
	pinged  time.Duration      // guarded by mu
	durable session            // guarded by mu
	busy    int                // guarded by mu; goroutines beside those that serve
	out     outbox             // guarded by mu
	closeBy time.Duration      // guarded by mu; when the socket is closed at the latest, once closing
	code    int                // guarded by mu; of the close frame, once closing

	// guarded by mu; each implies those before it but readDone
	readDone bool // nobody reads
	draining bool // the client was told to go
	closing  bool // no more is answered
	ends     bool // the close frame is in the outbox
	closed   bool // it was written
	gone     bool // the socket is closed
}

// begin greets the client and begins to read.
func (c *conn) begin(conn *websocket.Conn) {
	c.ws, c.session = conn, c.newSession()
	conn.SetReadLimit(c.h.opts.MaxFrame)
	conn.SetCloseHandler(func(int, string) error { return nil }) // ended answers it
	conn.SetPongHandler(func(string) error { return nil })
	conn.SetPingHandler(func(data string) error {
		c.mu.Lock()
		if !c.closing && c.out.size() <= c.h.opts.Outbox {
			c.putControl(opPong, []byte(data))
			c.flushLater()
		}
		c.mu.Unlock()
		return nil
	})
	c.heard.Store(int64(c.h.now()))
	greeting := hello{c.session, c.h.opts.Credits, c.h.opts.MaxFrame, c.h.opts.Idle}
	c.mu.Lock()
	c.put(128, func(b []byte) []byte { return c.wire.appendHello(b, greeting) })
	c.flush()
	c.h.add(c)
	go c.read()
}

const (
	// relief is how long a reader may serve before somebody else goes on reading.
	relief = 500 * time.Microsecond
	// singles is after how many requests that came one by one a client is taken to wait for each answer.
	singles = 8
)

// read reads until there is a request, and has somebody else go on reading while it serves that: so the goroutine that was woken by the socket
// is the one that goes to the model. Of a client that waits for each answer it goes on itself, and is relieved only when that takes long:
// another one would be woken for nothing.
func (c *conn) read() {
	for {
		f, err := c.next()
		if err != nil {
			c.ended(err)
			return
		}
		fl := c.take(f)
		switch {
		case fl == nil:
		case c.alone():
			if c.relay.Store(true); c.late == nil {
				c.late = time.AfterFunc(relief, c.relieve)
			} else {
				c.late.Reset(relief)
			}
			c.serve(fl)
			if !c.relay.CompareAndSwap(true, false) {
				return // relieved
			}
			c.late.Stop() // one that fires all the same finds nobody to relieve, or relieves the next a little early
		default:
			go c.read()
			c.serve(fl)
			return
		}
	}
}

// relieve reads in the place of who has served for long.
func (c *conn) relieve() {
	if c.relay.CompareAndSwap(true, false) {
		c.single = 0
		c.read()
	}
}

// alone reports whether the request that was just read is the only one, as those before it were.
func (c *conn) alone() bool {
	c.mu.Lock()
	one := len(c.flying) == 1
	c.mu.Unlock()
	if !one || c.in.Buffered() > 0 {
		c.single = 0
		return false
	}
	c.single++
	return c.single > singles
}

// frame is one message of the client.
type frame struct {
	*buffer
	text    bool
	booked  int64
	refused bool // there was no memory for all of it, and the rest was thrown away
}

// give gives the memory back.
func (f *frame) give(c *conn) {
	c.unbook(f)
	if f.buffer != nil {
		f.buffer.give()
		f.buffer = nil
	}
}

func (c *conn) unbook(f *frame) {
	if f.booked > 0 {
		c.h.opts.Memory.GiveRequest(f.booked)
		f.booked = 0
	}
}

// next reads one message. What is large is booked before there is memory for it.
func (c *conn) next() (f frame, err error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return f, err
	}
	f = frame{buffer: takeBuffer(), text: kind == websocket.TextMessage}
	for {
		c.heard.Store(int64(c.h.now()))
		if len(f.b) == cap(f.b) && !f.refused {
			size := 2 * cap(f.b)
			if c.h.opts.Memory != nil && size > freeOutbox {
				if f.refused = !c.h.opts.Memory.TakeRequest(int64(size) - f.booked); !f.refused {
					f.booked = int64(size)
				}
			}
			if !f.refused {
				f.b = append(make([]byte, 0, size), f.b...)
			}
		}
		var n int
		if f.refused {
			var scrap [4096]byte
			_, err = r.Read(scrap[:])
		} else {
			n, err = r.Read(f.b[len(f.b):cap(f.b)])
			f.b = f.b[:len(f.b)+n]
		}
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			f.give(c)
			return f, err
		}
	}
}

// take does what the frame asks for, but for a request, which is returned when it is to be served now.
func (c *conn) take(f frame) *flight {
	if f.text && !utf8.Valid(f.b) && !f.refused {
		f.give(c)
		c.end(CloseNotUTF8)
		return nil
	}
	if _, proto := c.wire.(protoWire); proto && f.text {
		f.give(c)
		c.end(CloseKind)
		return nil
	}
	fl := &flight{frame: f, start: time.Now()}
	m := message{}
	err := c.wire.parse(f.b, f.text, &m, c.h.opts.ReadSpec)
	if f.refused {
		err = &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonMemory, RetryAfter: 100 * time.Millisecond,
			Msg: "the memory for requests in flight is used up, so the frame was thrown away; send it again later, or a smaller one"}
	}
	fl.request = m.request
	c.mu.Lock()
	first := !c.begun
	c.begun = true
	switch {
	case c.closing:
		c.mu.Unlock()
		fl.give(c)
		return nil
	case err != nil:
		c.mistake(fl, err)
		c.flushLater()
		c.mu.Unlock()
		fl.give(c)
		return nil
	}
	c.bad = 0
	if m.act == actPredict {
		if err := c.may(fl); err != nil {
			c.forbid(fl, err)
			c.flushLater()
			c.mu.Unlock()
			fl.give(c)
			return nil
		}
		now := c.admit(fl)
		c.flushLater()
		c.mu.Unlock()
		if !now && !fl.waits {
			fl.give(c)
			return nil
		}
		if !now {
			return nil
		}
		return fl
	}
	c.mu.Unlock()
	fl.give(c)
	switch m.act {
	case actCancel:
		c.cancel(m.id)
	default:
		c.durably(&m, first)
	}
	return nil
}

// spend takes the credit of a request. It is false, and the connection ends, when the client has none. mu is held.
func (c *conn) spend() bool {
	if c.left <= 0 {
		c.close(CloseNoCredit, closeTexts[CloseNoCredit])
		return false
	}
	c.left--
	return true
}

// mistake answers a frame of which nothing can be made. It costs a credit, for its sender has taken it for a request, and gives it back.
// mu is held.
func (c *conn) mistake(fl *flight, err *inference.Error) {
	c.h.stats.bad.Add(1)
	c.h.svc.Observe(api.Observation{Protocol: protocol, Method: "predict", Code: err.Code, Reason: err.Reason, Took: time.Since(fl.start)})
	if c.bad++; c.bad > maxBad {
		c.close(CloseBadFrames, closeTexts[CloseBadFrames])
		return
	}
	if !c.spend() {
		return
	}
	c.back++
	c.putError(reply{id: fl.id}, err)
}

// putError adds an error, for which there is always room: it is small, and paid for with a credit. mu is held.
func (c *conn) putError(r reply, err *inference.Error) {
	c.put(len(err.Msg)+128, func(b []byte) []byte { return c.wire.appendError(b, r, err) })
}

// end closes the connection from outside.
func (c *conn) end(code int) {
	c.mu.Lock()
	c.close(code, closeTexts[code])
	c.mu.Unlock()
}

// close sends what waits and then a close frame. What is in flight is no longer answered. mu is held.
func (c *conn) close(code int, text string) {
	if c.closing || c.gone {
		return
	}
	c.stop(code)
	c.putClose(text)
	c.closeBy = c.h.now() + linger
	c.flushLater()
}

func (c *conn) stop(code int) {
	c.closing, c.code = true, code
	for id, fl := range c.flying {
		if fl.waits {
			fl.source.waiting = nil
			delete(c.flying, id)
			fl.give(c)
			continue
		}
		fl.end()
	}
	c.order.done, c.out.kept = nil, 0
	close(c.ending)
	c.space.Broadcast()
}

func (c *conn) putClose(text string) {
	c.putControl(opClose, closePayload(nil, c.code, text))
	c.ends = true
}

// abandon closes a connection whose client does not read: what waits is forgotten, but for the rest of the frame that is on its way. mu is held.
func (c *conn) abandon(code int) {
	if c.closing || c.gone {
		return
	}
	c.stop(code)
	if p := c.out.pending; p != nil {
		p.b = p.b[:0]
	}
	c.putClose(closeTexts[code])
	c.settle()
	c.closeBy = c.h.now() + 2*linger
	if c.out.writing {
		c.out.cut = true
		_ = c.net.SetWriteDeadline(time.Unix(1, 0)) // the write that is blocked returns
	} else {
		c.flushLater()
	}
}

// drop closes the socket. mu is held.
func (c *conn) drop() {
	if c.gone {
		return
	}
	if !c.closing {
		c.stop(websocket.CloseAbnormalClosure)
	}
	c.gone, c.closing = true, true
	if p := c.out.pending; p != nil {
		c.out.pending = nil
		p.give()
	}
	c.settle()
	c.space.Broadcast()
	_ = c.net.Close()
	c.endIfDone()
}

// endIfDone closes the socket when both sides have said that they end, and counts the connection out when nobody is busy with it any more.
// mu is held.
func (c *conn) endIfDone() {
	if c.closed && c.readDone && !c.gone {
		c.drop()
		return
	}
	if c.gone && c.readDone && !c.out.writing && len(c.flying) == 0 && c.busy == 0 {
		if c.out.booked > 0 {
			c.h.opts.Memory.GiveRequest(c.out.booked)
			c.out.booked = 0
		}
		if c.h.leave(c, c.code) {
			c.h.log.Debug("stream ended", "address", c.from, "code", c.code)
		}
	}
}

// ended is the end of reading.
func (c *conn) ended(err error) {
	var theirs *websocket.CloseError
	if errors.Is(err, websocket.ErrReadLimit) && c.fault == 0 {
		c.fault = CloseTooLarge // a length with its highest bit, of which gorilla/websocket says nothing to the client
	}
	code, text := 0, ""
	switch {
	case errors.As(err, &theirs):
		code = theirs.Code
	case c.fault != 0:
		code, text = c.fault, c.faultText
		if text == "" {
			text = closeTexts[code]
		}
	}
	c.mu.Lock()
	if code == 0 {
		c.drop()
	} else {
		c.close(code, text)
	}
	c.mu.Unlock()
	if code != 0 {
		// What the client still sends is thrown away until it has read why and goes, or look closes the socket: closed over unread data, it would
		// see a reset.
		_, _ = io.Copy(io.Discard, c.net)
	}
	c.mu.Lock()
	c.readDone = true
	c.endIfDone()
	c.mu.Unlock()
}

// look is what time brings: pings, and the ends of those that are idle, slow, or do not go.
func (c *conn) look(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	quiet := now - time.Duration(c.heard.Load())
	o := &c.out
	switch {
	case c.gone:
		return
	case c.closing:
		if now > c.closeBy {
			c.drop()
		}
		return
	case !c.holder.Alive():
		c.close(CloseNoToken, closeTexts[CloseNoToken])
		return
	case quiet > c.h.opts.Idle:
		c.close(CloseIdle, closeTexts[CloseIdle])
		return
	case quiet > c.h.opts.Ping && now-c.pinged > c.h.opts.Ping && o.size() <= c.h.opts.Outbox:
		c.pinged = now
		c.putControl(opPing, nil)
		c.flushLater()
	}
	c.touch(now)
	if o.writing {
		switch still := now - o.moved; {
		case still > c.h.opts.Slow && o.told: // even where nobody looked in time
			c.abandon(CloseSlow)
		case still > c.h.opts.Slow/2:
			c.tell(max(0, c.h.opts.Slow-still))
		}
	}
}

// drain tells the client to go, and closes once nothing is in flight.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.closing {
		return
	}
	c.draining = true
	c.put(32, c.wire.appendDraining)
	c.flushLater()
	c.endIfDrained()
}

// endIfDrained closes a connection that was told to go and has had its answers. mu is held.
func (c *conn) endIfDrained() {
	if c.draining && len(c.flying) == 0 {
		c.close(CloseDraining, closeTexts[CloseDraining])
	}
}
