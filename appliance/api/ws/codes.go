// codes.go: the one table of close codes, and the errors that are this package's own.
package ws

import (
	"strconv"

	"github.com/gorilla/websocket"

	"github.com/inferd/inferd/inference"
)

// Close codes: those below 4000 are RFC 6455's.
const (
	CloseDone      = websocket.CloseNormalClosure           // 1000
	CloseDraining  = websocket.CloseGoingAway               // 1001: inferd is stopping; connect again, or to another one
	CloseProtocol  = websocket.CloseProtocolError           // 1002: not a WebSocket frame where one had to be
	CloseKind      = websocket.CloseUnsupportedData         // 1003: a text frame under inferd.v1.proto
	CloseNotUTF8   = websocket.CloseInvalidFramePayloadData // 1007
	CloseTooLarge  = websocket.CloseMessageTooBig           // 1009: over max_frame
	CloseBadFrames = 4000                                   // frame after frame that cannot be read
	CloseNoCredit  = 4001                                   // a request more than was granted
	CloseNoSession = 4002                                   // no such session, or it has expired
	CloseNotSent   = 4003                                   // an acknowledgement of what was never sent
	CloseTakenOver = 4004                                   // another connection has resumed the session
	CloseNoToken   = 4005                                   // the token was removed, or has expired
	CloseSlow      = 4008                                   // answers were not read
	CloseIdle      = 4009                                   // nothing was heard, not even a pong
)

// closeTexts are the reasons in close frames, at most 123 bytes each.
var closeTexts = map[int]string{
	CloseDone:      "",
	CloseDraining:  "inferd is stopping; connect again in a moment",
	CloseProtocol:  "not a WebSocket frame",
	CloseKind:      "inferd.v1.proto takes binary frames only",
	CloseNotUTF8:   "a text frame is not UTF-8",
	CloseTooLarge:  "the frame is larger than max_frame",
	CloseBadFrames: "too many frames in a row could not be read",
	CloseNoCredit:  "more requests than credits; wait for {\"credits\":n}",
	CloseNoSession: "the session is unknown or has expired; begin a new one",
	CloseNotSent:   "acknowledged a sequence that was not sent",
	CloseTakenOver: "the session was resumed by another connection",
	CloseNoToken:   "the token was removed or has expired; connect with another one",
	CloseSlow:      "answers were not read in time; connect again and read faster",
	CloseIdle:      "nothing was heard for longer than idle_timeout",
}

// maxCloseText is what a control frame has room for beside the code.
const maxCloseText = 123

// closePayload is the payload of a close frame. A code that may not be sent has none.
func closePayload(dst []byte, code int, text string) []byte {
	if code == websocket.CloseNoStatusReceived || code == websocket.CloseAbnormalClosure || code == websocket.CloseTLSHandshake {
		return dst
	}
	if len(text) > maxCloseText {
		text = text[:maxCloseText]
	}
	return append(append(dst, byte(code>>8), byte(code)), text...)
}

func invalid(format string, args ...any) *inference.Error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, format, args...)
}

// quote is s for an error text, cut.
func quote(s []byte) string {
	if len(s) > 64 {
		return strconv.Quote(string(s[:64])) + "..."
	}
	return strconv.Quote(string(s))
}
