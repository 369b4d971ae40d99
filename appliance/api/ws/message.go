// message.go: what a client may say, in either subprotocol.
package ws

import (
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// The subprotocols.
const (
	JSONProtocol  = "inferd.v1.json"
	ProtoProtocol = "inferd.v1.proto"
)

// Bounds on what is short in any honest frame.
const (
	maxID   = 128 // bytes of a request's id, a lane, a session
	maxName = 512 // bytes of a model's name and a label
)

// act is what a frame asks for.
type act uint8

const (
	actPredict act = iota + 1
	actCancel
	actAck
	actResume
)

// message is one frame of a client, parsed as far as this package reads it.
type message struct {
	act act
	request
	through uint64 // of ack, and the after of resume
	session string // of resume
}

// request is one prediction that is asked for.
type request struct {
	id       string
	spec     inference.Spec
	kind     api.Kind
	body     []byte        // as the kind's codec reads it; lies in the frame, but for a durable one
	size     int           // bytes of the frame
	deadline time.Duration // from its arrival; 0: the model's default
	class    inference.Class

	durable, ordered, drop bool

	// of durable ones
	lane     string
	expires  time.Duration
	attempts int
}

// reply is what goes before a result on the wire.
type reply struct {
	id      string
	version int64
	seq     uint64 // of a durable one
}

// hello is what a connection begins with.
type hello struct {
	session  string
	credits  int
	maxFrame int64
	idle     time.Duration
}

// wire is a subprotocol. Implementations have no state.
type wire interface {
	name() string
	// parse reads a frame; text says which kind it was. With an error m.id is set where the frame has one.
	parse(frame []byte, text bool, m *message, spec func([]byte) (inference.Spec, *inference.Error)) *inference.Error
	// opcode is that of the frame that begins with these bytes.
	opcode(payload []byte) byte

	appendHello(dst []byte, h hello) []byte
	// appendResult appends an answer of that kind, body being what its codec wrote.
	appendResult(dst []byte, r reply, kind api.Kind, body []byte) []byte
	appendError(dst []byte, r reply, err *inference.Error) []byte
	appendAccepted(dst []byte, id, job string) []byte
	appendCredits(dst []byte, n int) []byte
	appendSlow(dst []byte, waiting int, close time.Duration) []byte
	appendDraining(dst []byte) []byte
	appendResumed(dst []byte, session string, last uint64, pending int) []byte
}

// Opcodes of frames.
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)
