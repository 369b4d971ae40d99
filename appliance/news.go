// news.go: one thing to wait on for whoever follows the appliance's state.
package appliance

import "sync"

// news tells those who wait that something is not as it was. The zero value is ready.
type news struct {
	mu      sync.Mutex
	changed chan struct{} // guarded by mu; nil while nobody waits
}

// tell wakes everybody who waits.
func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// next is closed at the next tell. Take it before looking, so that nothing falls in between.
func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}
