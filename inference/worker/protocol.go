// protocol.go: what travels on the control socket.
package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
)

// EnvWorker is set in the environment of a worker, to the TensorFlow library that it should open. EnvZygote is set in that of a zygote,
// which turns it into EnvWorker in the workers that it forks (see inference/tfrt/zygote.c; the names have the same length for that).
const (
	EnvWorker = "INFERD_WORKER"
	EnvZygote = "INFERD_ZYGOTE"
)

// controlFD is where a worker finds its control socket, and a zygote its own.
const controlFD = 3

// Load says what a worker loads and how it runs it.
type Load struct {
	Model   string
	Version int64
	Dir     string
	Tags    []string
	// Signatures of the version, by key. Runs name them by their place in the sorted keys.
	Signatures map[string]*inference.Signature

	IntraOpThreads int // 0 lets the backend decide
	InterOpThreads int
	Callers        int // threads that run the graph at once, for the whole process; 0 means one per CPU
	SingleThreaded bool
	BFloat16       bool

	Device         string  // the GPU as visible_device_list has it; empty means the CPU
	MemoryFraction float64 // of the device's memory; 0 lets the backend decide
	AllowGrowth    bool    // take device memory as it is needed

	// Freeze asks for the variables as constants: see Model.Frozen for what became of it.
	Freeze bool
	// Compared says that who asks for Freeze compares the answers, or has done so: the load then makes no runs for it.
	Compared bool

	Library  string // the TensorFlow library's path; set by the Host
	Confined bool   // by a Sandbox; set by the Host
	Gently   bool   // the loading thread has low priority, as the threads have that C code makes on it; set by the Host
}

// frame is a control message, one JSON object per packet.
//
//	core to worker
//	  start   Slots, Callers; fds: ring memory, doorbell to read, doorbell to ring. The first frame. With Gently all is done at low
//	          priority until promote.
//	  load    Model; fd: the Load as JSON. Answered by loaded.
//	  unload  Model
//	  area    Area, Size; fd. With Grow it answers more for Slot.
//	  drop    Area
//	  refuse  Slot, Text: answers more
//	  time    Answered by timed. From the first one on the callers' time in runs is counted, until one with Off
//	  promote From now on runs are made at normal priority. Answered by promoting; then the core wakes the callers that sleep.
//	worker to core
//	  loaded  Model, and Code and Text when it failed; NoDevice when that was inference.ReasonDevice. When it did not: Frozen, and what was
//	          found with Load.Freeze as Text
//	  more    Slot, Size: the outputs of the run in Slot need an area of Size bytes
//	  timed   Nanos: what the callers' runs have had of the processors, in the callers' own threads, since it is counted
//	  promoting, and promoted when no caller has low priority any more
type frame struct {
	Op      string         `json:"op"`
	Slots   int            `json:"slots,omitempty"`
	Callers int            `json:"callers,omitempty"`
	Model   uint32         `json:"model,omitempty"`
	Area    uint32         `json:"area,omitempty"`
	Slot    uint32         `json:"slot,omitempty"`
	Size    int64          `json:"size,omitempty"`
	Grow    bool           `json:"grow,omitempty"`
	Gently  bool           `json:"gently,omitempty"`
	Code    inference.Code `json:"code,omitempty"`
	Text    string         `json:"text,omitempty"`

	NoDevice bool `json:"no_device,omitempty"`
	Frozen   bool `json:"frozen,omitempty"`

	Off   bool  `json:"off,omitempty"`
	Nanos int64 `json:"nanos,omitempty"`
}

const (
	maxFrame = 32 << 10
	maxText  = 8 << 10
	// controlPatience bounds a write to a peer that does not read.
	controlPatience = 10 * time.Second
)

// control is one end of the socket. Sends may come from any goroutine, receives from one.
type control struct {
	conn *net.UnixConn
	mu   sync.Mutex // one deadline and one write at a time
	buf  [maxFrame]byte
}

// newControl takes over fd.
func newControl(fd int) (*control, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f) // a duplicate
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("control socket: not a unix socket")
	}
	return &control{conn: u}, nil
}

func (c *control) send(f frame, fds ...int) error {
	f.Text = f.Text[:min(len(f.Text), maxText)]
	packet, err := json.Marshal(f)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(controlPatience)); err != nil {
		return err
	}
	_, _, err = c.conn.WriteMsgUnix(packet, rights, nil)
	return err
}

// receivePacket reads one packet into the control's own buffer; io.EOF when the peer has gone (or sent an empty packet, which nobody does).
func (c *control) receivePacket(rights []byte) (packet []byte, nrights int, err error) {
	n, nrights, flags, _, err := c.conn.ReadMsgUnix(c.buf[:], rights)
	if err != nil {
		return nil, 0, err
	}
	if n == 0 {
		return nil, 0, io.EOF
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, nrights, lies("a control frame of more than %d bytes", len(c.buf))
	}
	return c.buf[:n], nrights, nil
}

// receive reads a frame from a worker. Descriptors that it might send are refused by the kernel, for there is no room for them.
func (c *control) receive() (frame, error) {
	packet, _, err := c.receivePacket(nil)
	if err != nil {
		return frame{}, err
	}
	return parseFrame(packet)
}

// receiveWithFDs reads a frame from the core, on the worker's side.
func (c *control) receiveWithFDs() (frame, []int, error) {
	rights := make([]byte, unix.CmsgSpace(4*4))
	packet, n, err := c.receivePacket(rights)
	if err != nil {
		return frame{}, nil, err
	}
	f, err := parseFrame(packet)
	if err != nil {
		return frame{}, nil, err
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return frame{}, nil, err
	}
	for i := range messages {
		more, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return frame{}, nil, err
		}
		fds = append(fds, more...)
	}
	return f, fds, nil
}

func parseFrame(packet []byte) (frame, error) {
	var f frame
	if err := json.Unmarshal(packet, &f); err != nil {
		return frame{}, lies("a control frame that is not JSON: %v", err)
	}
	return f, nil
}

// loadMemory puts l into shared memory, for it may be larger than a packet. The caller closes fd.
func loadMemory(l *Load) (fd, size int, err error) {
	text, err := json.Marshal(l)
	if err != nil {
		return -1, 0, fmt.Errorf("describe model %s version %d to its worker: %w", l.Model, l.Version, err)
	}
	fd, mem, err := newShared("inferd-load", len(text))
	if err != nil {
		return -1, 0, err
	}
	copy(mem, text)
	return fd, len(text), unix.Munmap(mem)
}

func readLoad(fd int, size int64) (*Load, error) {
	f := os.NewFile(uintptr(fd), "load")
	defer func() { _ = f.Close() }()
	var l Load
	if err := json.NewDecoder(io.NewSectionReader(f, 0, size)).Decode(&l); err != nil {
		return nil, fmt.Errorf("read what to load: %w", err)
	}
	return &l, nil
}
