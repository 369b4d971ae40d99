// park.go: a worker whose process is ended to save memory, and started again by the next run.
package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inferd/inferd/inference"
)

// What Park refuses with.
var (
	ErrBusy   = errors.New("runs are in flight, or the worker is being started")
	ErrShared = errors.New("the process may hold other versions too")
)

// errNoRoom: Room refused.
var errNoRoom = errors.New("no room")

// roomPatience bounds how long Room may take.
const roomPatience = 30 * time.Second

// Park ends the process to save its memory. That is no death: the next run, or Wake, starts another, as after a death, and waits for it. A worker
// that is parked already stays so. It returns when the process has ended, ErrBusy while a run is in flight or a process is being started, and
// ErrShared for a member of a Group.
func (m *Model) Park(reason string) error {
	if m.Shared() {
		return ErrShared
	}
	u := m.unit
	u.mu.Lock()
	p, state, waking := u.current, u.state, u.waking || len(u.wake) > 0
	u.mu.Unlock()
	switch {
	case state == Parked && waking:
		return ErrBusy // it has its memory again, or asks for it
	case state == Parked:
		return nil
	case p == nil || state != Live || m.closed.Load() || p.promotion.isLow():
		return ErrBusy
	case !p.end(ending{parked: true, reason: "parked: " + reason}, true):
		return ErrBusy
	}
	for {
		u.mu.Lock()
		changed, gone := u.changed, u.current != p
		u.mu.Unlock()
		if gone {
			return nil
		}
		select {
		case <-changed:
		case <-u.ctx.Done():
			return nil
		}
	}
}

// Parked reports whether the process was ended by Park and no other is there yet.
func (m *Model) Parked() bool {
	u := m.unit
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == Parked
}

// Wake starts the process of a parked worker, if it is one, and does not wait for it.
func (m *Model) Wake() {
	if m.Parked() {
		m.unit.rouse()
	}
}

// LoadTook is how long the last load into a new process took, 0 when there was none.
func (m *Model) LoadTook() time.Duration { return time.Duration(m.loadTook.Load()) }

// rouse tells the supervision that somebody waits.
func (u *unit) rouse() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *unit) setWaking(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waking = on
}

// isParked reports whether the process that is down was ended by Park.
func (u *unit) isParked() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.current != nil && u.current.ending != nil && u.current.ending.parked
}

// sleep waits until somebody wants the parked worker, and starts it; nil when the unit is closed. While it cannot be started those who wait are told
// why, and it stays parked.
func (u *unit) sleep() *process {
	u.mu.Lock()
	reason := u.current.ending.reason
	u.mu.Unlock()
	select {
	case <-u.wake: // of the life that has ended
	default:
	}
	u.change(func() { u.current, u.state, u.reason = nil, Parked, reason })
	u.log.Info("worker parked", "reason", reason)
	u.notify(Parked, reason)
	for {
		select {
		case <-u.ctx.Done():
			u.change(func() { u.state, u.reason = Closed, "" })
			return nil
		case <-u.wake:
		}
		u.setWaking(true)
		p, err := u.restart()
		if err == nil {
			u.setWaking(false)
			return p
		}
		if u.ctx.Err() != nil {
			continue
		}
		u.log.Warn("parked worker was not started; the next request tries again", "err", err)
		// Those who wait are told; whoever comes later asks again.
		u.change(func() { u.waking, u.refusal, u.refusals = false, err, u.refusals+1 })
	}
}

// room asks for memory for another process.
func (u *unit) room() (release func(), err error) {
	none := func() {}
	if u.opts.Room == nil {
		return none, nil
	}
	ctx, cancel := context.WithTimeout(u.ctx, roomPatience)
	defer cancel()
	release, err = u.opts.Room(ctx)
	if err != nil {
		return none, fmt.Errorf("start the worker of %s: %w: %w", u.process.subject, errNoRoom, err)
	}
	if release == nil {
		release = none
	}
	return release, nil
}

// free gives back what Room gave for the process that has ended.
func (u *unit) free(*process) {
	u.mu.Lock()
	release := u.release
	u.release = nil
	u.mu.Unlock()
	if release != nil {
		release()
	}
}

// refused is the error for a run that waited for a parked worker which could not be started.
func (m *Model) refused(err error) error {
	var e *inference.Error
	if errors.As(err, &e) {
		own := *e
		own.Err = err
		return &own
	}
	return &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: err,
		Msg: fmt.Sprintf("the worker of %s was parked to save memory and cannot be started: %v; try again", m.unit.process.subject, err)}
}
