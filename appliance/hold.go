// hold.go: inherited ports take no connection before what served in the life before serves again: a restart is a pause, not a 404.
package appliance

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/inferd/inferd/updater"
)

// holdPatience is how long connections may wait at a port for the first verdicts. Clients have deadlines too.
const holdPatience = 30 * time.Second

// hold keeps ports from accepting until it is released. It may be used from many goroutines.
type hold struct {
	once sync.Once
	open chan struct{} // closed by release
}

func newHold() *hold { return &hold{open: make(chan struct{})} }

func (h *hold) release() { h.once.Do(func() { close(h.open) }) }

// of is l, accepted from once h is released. Connections wait in the kernel's queue meanwhile, refused to nobody.
func (h *hold) of(l net.Listener) net.Listener {
	return &heldPort{Listener: l, open: h.open, closed: make(chan struct{})}
}

type heldPort struct {
	net.Listener
	open   <-chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (p *heldPort) Accept() (net.Conn, error) {
	select {
	case <-p.open:
		return p.Listener.Accept()
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. What waits in the queue of a socket that systemd holds too waits for the next life.
func (p *heldPort) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Listener.Close()
}

// settled reports that every model which the first look found has a version that serves, or has got to the end of its versions: what can be
// told about the start is told.
func settled(s updater.Status) bool {
	if !s.Scanned {
		return false
	}
	for _, m := range s.Models {
		if !m.Removed && !m.Verdict && len(m.Live) == 0 {
			return false
		}
	}
	return true
}

// watchHold releases the ports when the start is settled, or has lasted too long. When ctx ends before they stay shut, for then they close.
func (a *Appliance) watchHold(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, holdPatience)
	defer cancel()
	_, err := a.updater.Wait(waiting, settled)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		a.log.Warn("ports are opened before every model that was found has served or been refused", "wait", holdPatience)
	}
	a.held.release()
}
