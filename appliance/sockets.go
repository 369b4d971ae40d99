// sockets.go: the ports that systemd holds for inferd, and where they and the configuration are not of one mind.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/inferd/inferd/appliance/health"
)

// socketUnits are the units of packaging/systemd by the names that they give their sockets.
var socketUnits = map[string]string{"http": "inferd.socket", "grpc": "inferd-grpc.socket"}

// listen takes the inherited socket of that name, or binds the address.
func (a *Appliance) listen(name, addr string) (net.Listener, error) {
	inherited := slices.Contains(a.opts.Service.Listeners.Left(), name)
	l, err := a.opts.Service.Listeners.Listen(context.Background(), name, "tcp", addr)
	if err != nil || !inherited {
		return l, err
	}
	return a.take(name, l, addr)
}

// take is the inherited l, from which nothing is accepted before the first scan is done. The configuration counts: where l has another address
// it is closed, the configured one is bound, and it is said.
func (a *Appliance) take(name string, l net.Listener, addr string) (net.Listener, error) {
	a.again = a.again || name == "http"
	bound := l.Addr().String()
	if sameAddress(bound, addr) {
		return a.held.of(l), nil
	}
	unit, key := socketUnits[name], "listen."+name
	todo := fmt.Sprintf("set ListenStream=%s (systemctl edit %s) or %s: %s, and restart both; or do without: systemctl disable --now %s", addr, unit, key, bound, unit)
	own, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		_ = l.Close() // nothing was accepted from it
		a.differs(name, fmt.Sprintf("%s is %s, where inferd answers, but %s listens on %s, where whoever connects waits for ever; %s", key, addr, unit, bound, todo))
		return own, nil
	case errors.Is(err, syscall.EADDRINUSE) && contains(addr, bound):
		a.differs(name, fmt.Sprintf("%s is %s, but %s listens on %s alone, which is all that is served; %s", key, addr, unit, bound, todo))
		return a.held.of(l), nil
	case errors.Is(err, syscall.EADDRINUSE): // the socket may be open to more than was configured
		err = fmt.Errorf("%s cannot be opened, perhaps because %s listens on %s; %s", addr, unit, bound, todo)
	}
	_ = l.Close()
	return nil, err
}

// handOver shuts the HTTP ports, where the next life takes them over.
func (a *Appliance) handOver(servers []*httpDoor) {
	if !a.again {
		return
	}
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(s.shut)
	}
	wg.Wait()
}

func (a *Appliance) differs(name, text string) {
	a.log.Warn("socket unit and configuration differ", "name", name, "reason", text)
	a.sockets = append(a.sockets, text)
}

// unheard says of inherited sockets that nobody took. They are closed here, but systemd goes on listening.
func (a *Appliance) unheard() {
	for _, name := range a.opts.Service.Listeners.Left() {
		if unit, ok := socketUnits[name]; ok {
			a.differs(name, fmt.Sprintf("listen.%s is off, but %s listens, where whoever connects waits for ever; set listen.%s, or systemctl disable --now %s", name, unit, name, unit))
			continue
		}
		a.differs(name, fmt.Sprintf("a socket is called %q, which means nothing here; FileDescriptorName= is http or grpc", name))
	}
	if err := a.opts.Service.Listeners.Close(); err != nil {
		a.log.Warn("inherited sockets were not closed cleanly", "err", err)
	}
	if len(a.sockets) > 0 {
		a.health.Set(health.Condition{Code: health.CodeSocket, Severity: health.Warning, Message: strings.Join(a.sockets, "; besides, ")})
	}
}

// sameAddress reports whether a bound address is what was asked for.
func sameAddress(bound, wanted string) bool {
	b, w, ok := addresses(bound, wanted)
	return ok && (w.Port == 0 || w.Port == b.Port) && (w.IP.Equal(b.IP) || everywhere(w) && everywhere(b))
}

// contains reports whether whoever asked for wanted asked for bound, among others.
func contains(wanted, bound string) bool {
	b, w, ok := addresses(bound, wanted)
	return ok && w.Port == b.Port && everywhere(w)
}

func addresses(bound, wanted string) (b, w *net.TCPAddr, ok bool) {
	b, err := net.ResolveTCPAddr("tcp", bound)
	if err != nil {
		return nil, nil, false
	}
	w, err = net.ResolveTCPAddr("tcp", wanted)
	return b, w, err == nil
}

func everywhere(a *net.TCPAddr) bool { return len(a.IP) == 0 || a.IP.IsUnspecified() }
