// drain.go: closing an HTTP door without losing whoever is just coming in.
package appliance

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// arrivalPatience is how long a door that is shut waits for what has come in before. Most is answered by then; a connection may also have
// nothing to send.
const arrivalPatience = time.Second

// httpDoor is a server on its listener.
type httpDoor struct {
	server   *http.Server
	listener net.Listener
	served   <-chan struct{} // closed when Serve has returned
	inside   *visitors
}

// shut lets nobody in any more, and what has come in to its answer, for arrivalPatience at most. It comes before anybody is told that the
// appliance stops, where the next life takes over the port: who was let in is not sent away, and who comes now waits for that.
func (d *httpDoor) shut() {
	d.close()
	d.server.SetKeepAlivesEnabled(false) // each answer says that its connection ends
	d.inside.wait()
}

// close closes the listener and waits for Serve. Shutdown does not know of a connection that Accept has returned and Serve not yet
// registered; once Serve has returned there is none.
func (d *httpDoor) close() {
	_ = d.listener.Close() // nobody is accepted in any case
	<-d.served
}

// drain lets requests in flight finish, until ctx ends. net/http closes a connection whose request it is just reading without an answer: see
// shut.
func (d *httpDoor) drain(ctx context.Context) {
	d.close()
	if d.server.Shutdown(ctx) != nil {
		_ = d.server.Close()
	}
}

// visitors are the connections that are new, or have a request.
type visitors struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
	none  chan struct{}         // guarded by mu; when not nil, closed once there are none
}

// watchVisitors follows the connections of s, whose ConnState is its own from then on.
func watchVisitors(s *http.Server) *visitors {
	v := &visitors{conns: make(map[net.Conn]struct{})}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if state == http.StateNew || state == http.StateActive {
			v.conns[c] = struct{}{}
			return
		}
		delete(v.conns, c)
		if len(v.conns) == 0 && v.none != nil {
			close(v.none)
			v.none = nil
		}
	}
	return v
}

// wait returns when there are none, or after arrivalPatience. It is called once, when no more are let in.
func (v *visitors) wait() {
	v.mu.Lock()
	if len(v.conns) == 0 {
		v.mu.Unlock()
		return
	}
	none := make(chan struct{})
	v.none = none
	v.mu.Unlock()
	t := time.NewTimer(arrivalPatience)
	defer t.Stop()
	select {
	case <-none:
	case <-t.C:
	}
}
