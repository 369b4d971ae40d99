// alarm.go: waiting until a time with more precision than a Go timer, which an idle process rounds up to a millisecond.
package loadgen

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm is a timerfd in the runtime's poller: it wakes within some tens of microseconds and burns no processor while it waits.
type alarm struct {
	fd   int
	file *os.File
	buf  [8]byte
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &alarm{fd: fd, file: os.NewFile(uintptr(fd), "timer")}, nil
}

// sleep returns after d, or at once when the alarm was woken.
func (a *alarm) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if unix.TimerfdSettime(a.fd, 0, &spec, nil) != nil {
		time.Sleep(d)
		return
	}
	_, _ = a.file.Read(a.buf[:]) // it fails only when it is woken
}

// wake ends this sleep and all later ones. Any goroutine may call it.
func (a *alarm) wake() { _ = a.file.SetReadDeadline(time.Unix(1, 0)) } // a pollable file has deadlines

func (a *alarm) close() { _ = a.file.Close() }
