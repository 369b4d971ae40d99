// drain.go: closing an HTTP door without losing whoever is just coming in.
package appliance

import (
	"context"
	"net"
	"net/http"
)

// httpDoor is a server on its listener.
type httpDoor struct {
	server   *http.Server
	listener net.Listener
	served   <-chan struct{} // closed when Serve has returned
}

// drain lets requests in flight finish, until ctx ends. The listener is closed first: Shutdown does not know of a connection that Accept has
// returned and Serve not yet registered, and once Serve has returned there is none.
func (d *httpDoor) drain(ctx context.Context) {
	_ = d.listener.Close() // nobody is accepted in any case
	<-d.served
	if d.server.Shutdown(ctx) != nil {
		_ = d.server.Close()
	}
}
