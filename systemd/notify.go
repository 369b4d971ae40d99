// notify.go: telling systemd how the service is.
package systemd

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier sends states to the socket that systemd gave. It may be used from many goroutines.
type Notifier struct {
	path string
}

// NewNotifier sends to the socket at path, the value of NOTIFY_SOCKET; a leading @ stands for the abstract namespace. Empty: nowhere.
func NewNotifier(path string) *Notifier { return &Notifier{path: path} }

// Enabled reports whether anybody is told.
func (n *Notifier) Enabled() bool { return n.path != "" }

// Ready says that the service has started.
func (n *Notifier) Ready() error { return n.send(daemon.SdNotifyReady) }

// Reloading says that the configuration is being read again; Ready ends it. The time is the monotonic clock's, as systemd wants it.
func (n *Notifier) Reloading() error {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, t.Nano()/1000))
}

// Stopping says that the service is on its way down.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Status is one line for systemctl status.
func (n *Notifier) Status(line string) error {
	return n.send("STATUS=" + strings.Map(func(r rune) rune {
		if r == '\n' || r == 0 {
			return ' ' // either would end the assignment
		}
		return r
	}, line))
}

// ExtendTimeout asks for d more, from now, to finish starting or stopping.
func (n *Notifier) ExtendTimeout(d time.Duration) error {
	return n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// Ping says that the service is alive.
func (n *Notifier) Ping() error { return n.send(daemon.SdNotifyWatchdog) }

// send does not use the library's own, which takes the path from the environment at each call.
func (n *Notifier) send(state string) error {
	if n.path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer func() { _ = conn.Close() }() // a datagram is sent or not by then
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
