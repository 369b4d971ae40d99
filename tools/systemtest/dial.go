// dial.go: connections into a machine's network, which is its own.
package systemtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an address of the machine, an IP address with a port, from inside.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	pid := m.pid1.Load()
	if pid == 0 {
		return nil, errors.New("the machine is off")
	}
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = ours.Close() }()

	// A socket belongs to the network of the thread that makes it. Go dials one IP address in the calling goroutine.
	runtime.LockOSThread()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter the machine's network: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if back := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, fmt.Errorf("leave the machine's network: %w", back) // the thread stays locked and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// HTTP is a client that sees the machine's network. Each has connections of its own.
func (m *Machine) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: m.Dial, MaxIdleConnsPerHost: 64}}
}
