// listen.go: sockets that systemd has bound for the service.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listeners are the inherited sockets, by the names that the socket unit gives them (FileDescriptorName=).
type Listeners struct {
	mu     sync.Mutex
	byName map[string][]net.Listener // guarded by mu; those that nobody has taken
}

// Inherit takes over the sockets of this process, and takes them out of the environment. It is called once. On error every one of
// them is closed.
func Inherit() (*Listeners, error) {
	l := &Listeners{byName: make(map[string][]net.Listener)}
	var errs error
	for _, f := range activation.Files(true) {
		listener, err := net.FileListener(f) // its own duplicate of the descriptor
		if err == nil {
			err = f.Close()
		} else {
			_ = f.Close()
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("inherit socket %s: %w", f.Name(), err))
			continue
		}
		if u, ok := listener.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path belongs to systemd, which goes on listening on it
		}
		l.byName[f.Name()] = append(l.byName[f.Name()], listener)
	}
	if errs != nil {
		return nil, errors.Join(errs, l.Close())
	}
	return l, nil
}

// Listen is the inherited socket of that name, which the caller owns from then on. When there is none the address is bound.
func (l *Listeners) Listen(ctx context.Context, name, network, address string) (net.Listener, error) {
	if listener := l.take(name); listener != nil {
		return listener, nil
	}
	var config net.ListenConfig
	return config.Listen(ctx, network, address)
}

func (l *Listeners) take(name string) net.Listener {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.byName[name]
	if len(list) == 0 {
		return nil
	}
	l.byName[name] = list[1:]
	return list[0]
}

// Left has the names of the sockets that nobody has taken, sorted: a name that the service does not know is worth a warning.
func (l *Listeners) Left() (names []string) {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, list := range l.byName {
		for range list {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Close closes the sockets that nobody has taken.
func (l *Listeners) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, list := range l.byName {
		for _, listener := range list {
			err = errors.Join(err, listener.Close())
		}
	}
	clear(l.byName)
	return err
}
