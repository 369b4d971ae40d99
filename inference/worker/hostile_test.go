// hostile_test.go: workers that speak the handshake and then lie, each in its way.
package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// hostile is a worker in the hands of an attacker: it has all that a worker has.
type hostile struct {
	*server
	fds []int // of every area that it was sent, kept open
}

// lie does one dishonest thing with a submission.
type lie func(h *hostile, sub submission)

// honest answers like a good worker would: the input's bytes as one float vector.
func (h *hostile) honest(sub submission) {
	run, err := decodeRun(h.area(sub.in))
	if err != nil {
		fatal(err)
	}
	w := newResultWriter(h.area(sub.out), nil)
	if err := w.add(run.inputs[0]); err != nil {
		fatal(err)
	}
	w.finish(false, nil)
}

func (h *hostile) done(slot uint32) {
	if h.ring.complete(slot) {
		h.rings(1)
	}
}

func (h *hostile) rings(n int) { _, _ = unix.Write(h.coreFD, make([]byte, n)) }

// answer completes with an output area that edit has had in its hands.
func (h *hostile) answer(sub submission, edit func(out []byte)) {
	h.honest(sub)
	edit(h.area(sub.out))
	h.done(sub.slot)
}

var le = binary.LittleEndian

// editDesc changes the descriptor of the only output.
func editDesc(edit func(desc []byte)) lie {
	return func(h *hostile, sub submission) {
		h.answer(sub, func(out []byte) { edit(out[le.Uint64(out[16:]):]) })
	}
}

func editHead(edit func(out []byte)) lie {
	return func(h *hostile, sub submission) { h.answer(sub, edit) }
}

func sendFrame(f frame) lie {
	return func(h *hostile, _ submission) { _ = h.ctl.send(f) }
}

// lies, and what the core says about each.
var lieTable = map[string]struct {
	tell lie
	want string // in the reason of the death
}{
	"index out of range":       {func(h *hostile, _ submission) { h.done(1 << 30) }, "slot 1073741824"},
	"index of nothing":         {func(h *hostile, sub submission) { h.done(sub.slot + 1) }, "in which nothing runs"},
	"completes twice":          {func(h *hostile, sub submission) { h.honest(sub); h.done(sub.slot); h.done(sub.slot) }, "in which nothing runs"},
	"length over the area":     {editDesc(func(d []byte) { le.PutUint64(d[16:], 1<<40) }), "bytes at"},
	"length that wraps":        {editDesc(func(d []byte) { le.PutUint64(d[8:], 1<<63); le.PutUint64(d[16:], 1<<63) }), "bytes at"},
	"length against the shape": {editDesc(func(d []byte) { le.PutUint64(d[16:], 8) }), "bytes disagree with shape"},
	"rank":                     {editDesc(func(d []byte) { le.PutUint32(d[4:], 1<<31) }), "rank 2147483648"},
	"negative dimension":       {editDesc(func(d []byte) { le.PutUint64(d[descFixed:], 1<<63) }), "impossible shape"},
	"dtype":                    {editDesc(func(d []byte) { le.PutUint32(d, uint32(tensor.Double)) }), "the signature says DT_FLOAT"},
	"count":                    {editHead(func(o []byte) { le.PutUint32(o[8:], 1<<31) }), "2147483648 outputs"},
	"table outside":            {editHead(func(o []byte) { le.PutUint64(o[16:], 1<<62) }), "a table of"},
	"table too long":           {editHead(func(o []byte) { le.PutUint64(o[24:], 1<<62) }), "a table of"},
	"table too short":          {editHead(func(o []byte) { le.PutUint64(o[24:], 3) }), "a table of tensors ends"},
	"code":                     {editHead(func(o []byte) { le.PutUint32(o, 99) }), "code 99"},
	"message":                  {editHead(func(o []byte) { le.PutUint32(o, 3); le.PutUint32(o[12:], 1<<31) }), "a text of"},

	"doorbell flood": {func(h *hostile, _ submission) {
		for {
			h.rings(1)
		}
	}, "doorbells"},
	"doorbell unasked": {func(h *hostile, _ submission) { h.rings(1) }, "1 doorbells for 0 completions"},
	"frame flood": {func(h *hostile, _ submission) {
		for {
			_ = h.ctl.send(frame{Op: "loaded", Model: 1})
		}
	}, "not asked for"},
	"unknown frame":         {sendFrame(frame{Op: "please"}), `"please"`},
	"frame that is no JSON": {func(h *hostile, _ submission) { _, _ = h.ctl.conn.Write([]byte("{{")) }, "not JSON"},
	"frame too long":        {func(h *hostile, _ submission) { _, _ = h.ctl.conn.Write(make([]byte, maxFrame+1)) }, "control frame of more"},
	"empty frame":           {func(h *hostile, _ submission) { _, _ = h.ctl.conn.Write(nil); select {} }, ""},
	"more for nobody":       {sendFrame(frame{Op: "more", Slot: 1 << 30, Size: 1 << 20}), "more memory for slot"},
	"more for another":      {func(h *hostile, sub submission) { _ = h.ctl.send(frame{Op: "more", Slot: sub.slot + 1, Size: 1 << 20}) }, "does not need"},
	"more of nothing":       {func(h *hostile, sub submission) { _ = h.ctl.send(frame{Op: "more", Slot: sub.slot, Size: -5}) }, "does not need"},
	"more after a refusal": {func(h *hostile, sub submission) {
		for range 2 {
			_ = h.ctl.send(frame{Op: "more", Slot: sub.slot, Size: 1 << 60})
		}
	}, "does not need"},
	"times itself":      {sendFrame(frame{Op: "timed", Nanos: 1}), "not asked for"},
	"promotes itself":   {func(h *hostile, _ submission) { _ = h.ctl.send(frame{Op: "promoted"}) }, "not asked for"},
	"closes its socket": {func(h *hostile, _ submission) { _ = h.ctl.conn.Close(); select {} }, "SIGKILL"},
	"silence":           {func(*hostile, submission) {}, "run_timeout"},
}

// hostileMain is the worker's life.
func hostileMain(name string) {
	settle()
	ctl, err := newControl(controlFD)
	if err != nil {
		fatal(err)
	}
	h := &hostile{server: &server{ctl: ctl, open: openFake, models: make(map[uint32]*loadedModel), areas: make(map[uint32][]byte), grown: make(map[uint32]chan []byte)}}
	h.arrived.L = &h.mu
	f, fds, err := ctl.receiveWithFDs()
	if err != nil {
		fatal(err)
	}
	mem, err := mapShared(fds[0], ringBytes(f.Slots))
	if err != nil {
		fatal(err)
	}
	h.bell, h.coreFD = fds[1], fds[2]
	if h.ring.ring, err = newRing(mem, f.Slots); err != nil {
		fatal(err)
	}
	tell := lieTable[name].tell
	switch name {
	case "truncate":
		tell = func(h *hostile, sub submission) { h.truncate(fds[0]); h.honest(sub); h.done(sub.slot) }
	case "rewrite":
		tell = func(h *hostile, sub submission) { h.rewrite(sub) }
	case "fill":
		tell = func(h *hostile, sub submission) { h.fill(); h.honest(sub); h.done(sub.slot) }
	}
	go func() {
		for {
			sub, _ := h.next(&h.retired)
			tell(h, sub)
		}
	}()
	for {
		f, got, err := ctl.receiveWithFDs()
		if err != nil {
			select {} // the core has gone or has had enough; an attacker stays
		}
		if f.Op == "area" {
			fd, err := unix.Dup(got[0])
			if err != nil {
				fatal(err)
			}
			h.fds = append(h.fds, fd)
		}
		if err := h.handle(f, got); err != nil {
			fatal(err)
		}
	}
}

// truncate tries to take memory away under the core.
func (h *hostile) truncate(ring int) {
	for _, fd := range append([]int{ring}, h.fds...) {
		for _, size := range []int64{0, 1 << 30} {
			if err := unix.Ftruncate(fd, size); !errors.Is(err, unix.EPERM) {
				fmt.Fprintln(os.Stderr, "resized shared memory:", err)
			}
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
			fmt.Fprintln(os.Stderr, "sealed shared memory:", err)
		}
	}
	for _, fd := range h.fds { // allowed, and only zeroes
		_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 1<<20)
	}
	fmt.Fprintln(os.Stderr, "tried to truncate")
}

// rewrite changes an answer of strings over and over while the core reads it.
func (h *hostile) rewrite(sub submission) {
	h.honest(sub)
	out := h.area(sub.out)
	good := append([]byte(nil), out...)
	h.done(sub.slot)
	for i := range 2000 {
		copy(out, good)
		at := 8 * (i % 1000)
		le.PutUint64(out[at:], 0xffff_ffff_ffff_0000+uint64(i))
	}
	copy(out, good)
}

// fill makes the doorbell and the counters that the core uses useless.
func (h *hostile) fill() {
	h.ring.sleepers.Store(1 << 30)
	h.ring.tail.Store(1 << 60)
	h.ring.head.Store(0)
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", h.bell), unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		fatal(err)
	}
	for {
		if _, err := unix.Write(fd, make([]byte, 4096)); err != nil {
			break
		}
	}
	fmt.Fprintln(os.Stderr, "doorbell is full")
}

func TestLies(t *testing.T) {
	good := startHost(t, true)
	other := open(t, good, fakeLoad("other"), Options{})
	for name, c := range lieTable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startHost(t, false, envHostile+"="+name)
			st := newStates()
			timeout := time.Hour // it is the lie that ends the worker
			if name == "silence" {
				timeout = 100 * time.Millisecond
			}
			m := open(t, h, fakeLoad("liar"), Options{RunTimeout: timeout, OnState: st.on, GiveUpAfter: 1, GiveUpFor: time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			res, err := m.Run(ctx, runOf("echo", floatTensor(1, 2, 3)))
			if err == nil {
				res.Release() // of the first completion of two
			} else if !errors.Is(err, inference.ErrWorkerDied) && !errors.Is(err, inference.ErrRunTimeout) {
				t.Errorf("the run: %v", err)
			}
			if got := st.wait(t, "restarting"); !strings.Contains(got, c.want) {
				t.Errorf("the worker died of %q, want %q", got, c.want)
			}
			st.wait(t, "given up")
			echo(t, other, 1)
		})
	}
}

func TestWorkerCannotTakeMemoryAway(t *testing.T) {
	h := startHost(t, false, envHostile+"=truncate")
	m := open(t, h, fakeLoad("liar"), Options{})
	for range 3 {
		echo(t, m, 1, 2, 3)
		h.wait(t, "tried to truncate")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.lines {
		t.Error(line)
	}
}

func TestWorkerThatRewritesAnswers(t *testing.T) {
	h := startHost(t, false, envHostile+"=rewrite")
	m := open(t, h, fakeLoad("liar"), Options{GiveUpAfter: 1 << 20, Backoff: time.Nanosecond, MaxBackoff: time.Nanosecond})
	words := make([]string, 900)
	for i := range words {
		words[i] = strings.Repeat("w", i%7)
	}
	// Whatever it does, the answer lies inside its area or is refused; reading all of it must not fault.
	for range 20 {
		res, err := m.Run(t.Context(), runOf("strings", stringTensor(words...)))
		if err != nil {
			if !errors.Is(err, inference.ErrWorkerDied) {
				t.Fatal(err)
			}
			continue
		}
		for range 10 {
			n := 0
			for _, s := range res.Outputs[0].Strings {
				for _, c := range s {
					n += int(c)
				}
			}
			if n < 0 {
				t.Fatal("unreachable; keeps the reads")
			}
		}
		res.Release()
	}
}

// TestFullDoorbell has the worker make the core's ringing impossible: neither a run nor the end of it may wait for that.
func TestFullDoorbell(t *testing.T) {
	h := startHost(t, false, envHostile+"=fill")
	m := open(t, h, fakeLoad("liar"), Options{RunTimeout: 50 * time.Millisecond})
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		res, err := m.Run(ctx, runOf("echo", floatTensor(1)))
		cancel()
		switch {
		case err == nil:
			res.Release()
		case !errors.Is(err, inference.ErrRunTimeout) && !errors.Is(err, inference.ErrWorkerDied):
			t.Fatalf("run %d: %v", i, err)
		}
	}
	h.wait(t, "doorbell is full")
}
