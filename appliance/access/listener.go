// listener.go: how many connections a door takes, altogether and from one address, and the end of those whose clients do not read.
package access

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a listener. Zero means none.
type Limits struct {
	Connections int // past it new ones wait to be accepted
	PerAddress  int // past it new ones are closed; of IPv6 a /64 network counts as one
	// Slow is how long a write may make no progress: a connection whose client has taken less than writeChunk of an answer for so long is closed.
	Slow time.Duration
}

// writeChunk is how much is written at a time, so that a long answer shows its progress.
const writeChunk = 64 << 10

// Limit is l within limits. Closing it closes l.
func Limit(l net.Listener, limits Limits) *Listener {
	d := &Listener{Listener: l, limits: limits, conns: make(map[*conn]struct{}), from: make(map[netip.Addr]int), done: make(chan struct{}), last: make(chan struct{}, 1)}
	if limits.Connections > 0 {
		d.room = make(chan struct{}, limits.Connections)
	}
	return d
}

// Listener is a net.Listener within limits.
type Listener struct {
	net.Listener
	limits Limits
	room   chan struct{} // holds one for each connection; nil: no limit
	done   chan struct{} // closed when the listener is
	closed sync.Once
	last   chan struct{} // cap 1: it is closed, and there are no connections any more

	turned, slow atomic.Int64

	mu       sync.Mutex
	conns    map[*conn]struct{} // guarded by mu
	from     map[netip.Addr]int // guarded by mu
	watching bool               // guarded by mu; a goroutine looks at the connections
}

// ListenerStats are what a listener has to tell.
type ListenerStats struct {
	Open   int
	Turned int64 // away, for their address had its connections
	Slow   int64 // closed, for their clients did not read
}

// Stats is a snapshot.
func (l *Listener) Stats() ListenerStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ListenerStats{len(l.conns), l.turned.Load(), l.slow.Load()}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	if l.room != nil {
		select {
		case l.room <- struct{}{}:
		case <-l.done:
			return nil, net.ErrClosed
		}
	}
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			if l.room != nil {
				<-l.room
			}
			return nil, err
		}
		c := &conn{Conn: raw, of: l, from: addressOf(raw)}
		if l.enter(c) {
			return c, nil
		}
		l.turned.Add(1)
		_ = raw.Close() // nothing was said
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.closed.Do(func() { close(l.done) })
	l.mu.Lock()
	l.ended()
	l.mu.Unlock()
	return l.Listener.Close()
}

// ended tells the watcher when there will be nothing to watch any more. mu is held.
func (l *Listener) ended() {
	if len(l.conns) > 0 {
		return
	}
	select {
	case <-l.done:
	default:
		return
	}
	select {
	case l.last <- struct{}{}:
	default:
	}
}

// addressOf is who counts as one: an address, or a network that is one subscriber's.
func addressOf(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return subscriber(tcp.AddrPort().Addr())
}

// subscriber is an address without its zone, of IPv6 its /64 network.
func subscriber(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	return a
}

func (l *Listener) enter(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := l.limits.PerAddress; most > 0 && c.from.IsValid() && l.from[c.from] >= most {
		return false
	}
	l.conns[c] = struct{}{}
	l.from[c.from]++
	if l.limits.Slow > 0 && !l.watching {
		l.watching = true
		go l.watch()
	}
	return true
}

func (l *Listener) leave(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	if l.from[c.from]--; l.from[c.from] == 0 {
		delete(l.from, c.from)
	}
	l.ended()
	l.mu.Unlock()
	if l.room != nil {
		<-l.room
	}
}

// watch looks at the connections while there are any.
func (l *Listener) watch() {
	tick := time.NewTicker(min(max(l.limits.Slow/8, time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.last:
		}
		now := time.Now()
		l.mu.Lock()
		if len(l.conns) == 0 {
			l.watching = false
			l.mu.Unlock()
			return
		}
		var stuck []*conn
		for c := range l.conns {
			if c.stuck(now, l.limits.Slow) {
				stuck = append(stuck, c)
			}
		}
		l.mu.Unlock()
		for _, c := range stuck {
			l.slow.Add(1)
			c.cut()
		}
	}
}

// conn is a connection that shows whether what is written to it goes anywhere.
type conn struct {
	net.Conn
	of   *Listener
	from netip.Addr
	left sync.Once

	writing atomic.Int32  // calls of Write
	moved   atomic.Uint32 // chunks that were written

	// guarded by Listener.mu; of watch
	seen  uint32
	since time.Time // when seen was so first, zero while nobody writes
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (n int, err error) {
	c.writing.Add(1)
	for {
		var k int
		k, err = c.Conn.Write(b[n:min(len(b), n+writeChunk)])
		n += k
		c.moved.Add(1)
		if err != nil || n == len(b) {
			break
		}
	}
	c.writing.Add(-1)
	return n, err
}

// stuck reports whether a write has made no progress for so long. Listener.mu is held.
func (c *conn) stuck(now time.Time, most time.Duration) bool {
	moved := c.moved.Load()
	if c.writing.Load() == 0 {
		c.since = time.Time{}
		return false
	}
	if moved != c.seen || c.since.IsZero() {
		c.seen, c.since = moved, now
		return false
	}
	return now.Sub(c.since) >= most
}

// cut closes the socket, with a reset: who does not read would keep what is in its buffers for long.
func (c *conn) cut() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it is closed in any case
	}
	_ = c.Close()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.left.Do(func() { c.of.leave(c) })
	return c.Conn.Close()
}

// CloseWrite ends what this side says, where the connection can.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// NetConn is the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }
