// fuzz_test.go: frames that anybody may send.
package ws

import (
	"testing"

	"github.com/inferd/inferd/appliance/api/rpc"
)

// FuzzFrame: any frame, of either kind and subprotocol, is a message within its bounds, or an error.
func FuzzFrame(f *testing.F) {
	f.Add([]byte(`{"id":"1","model":"m","version":3,"instances":[1],"durable":true,"deadline_ms":5}`), true)
	f.Add([]byte(`{"resume":{"session":"s","after":3}}`), true)
	f.Add([]byte(`{"ack":18446744073709551615}`), true)
	f.Add(binaryFrame(4, `{"id":"1","model":"m","shape":[2]}`, "\x00\x00\x80\x3f"), false)
	f.Add(binaryFrame(2, `{"id":"1"}`, "\x0a\x03\x0a\x01m"), false)
	f.Add([]byte("\x0a\x05\x0a\x01\x31\x12\x00"), false)
	f.Fuzz(func(t *testing.T, frame []byte, text bool) {
		for _, w := range []wire{jsonWire{}, protoWire{}} {
			var m message
			if err := w.parse(frame, text, &m, rpc.ReadSpec); err != nil {
				if err.Msg == "" {
					t.Fatalf("%s: an error without words", w.name())
				}
				continue
			}
			switch m.act {
			case actPredict:
				if m.id == "" || len(m.id) > maxID || len(m.lane) > maxID || m.deadline < 0 || m.drop && m.durable {
					t.Fatalf("%s: %+v", w.name(), m)
				}
			case actCancel, actAck, actResume:
			default:
				t.Fatalf("%s: act %d", w.name(), m.act)
			}
		}
	})
}

// FuzzBinaryHeader: the parts of a binary frame are within it, and are the whole of it.
func FuzzBinaryHeader(f *testing.F) {
	f.Add(binaryFrame(4, `{"id":"1"}`, "x"))
	f.Add([]byte{4, 0, 255, 255})
	f.Fuzz(func(t *testing.T, frame []byte) {
		_, header, payload, err := splitBinary(frame)
		if err == nil && binaryHead+len(header)+len(payload) != len(frame) {
			t.Fatalf("%d and %d bytes of %d", len(header), len(payload), len(frame))
		}
	})
}
