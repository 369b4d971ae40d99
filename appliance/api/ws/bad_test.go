// bad_test.go: what clients get wrong, and the answer to each: an error frame for a request, a close code for a connection.
package ws

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// masked is a client's frame with any first byte, and a mask of zeros.
func masked(first byte, payload string) string {
	head := []byte{first, 0x80 | byte(len(payload)), 0, 0, 0, 0}
	return string(head) + payload
}

func TestBadRequests(t *testing.T) {
	r := serve(t, Options{})
	p := r.dial(t, JSONProtocol)
	long := strings.Repeat("x", 129)
	for _, c := range []struct{ name, frame, id, code, words string }{
		{"no object", `[1]`, "", "INVALID_ARGUMENT", ""},
		{"cut off", `{"id":"1","model":"m","instances":[1`, "1", "INVALID_ARGUMENT", ""},
		{"unknown", `{"hello":"you"}`, "", "INVALID_ARGUMENT", "none of those known"},
		{"no id", `{"model":"m","instances":[1]}`, "", "INVALID_ARGUMENT", `no "id"`},
		{"empty id", `{"id":"","model":"m","instances":[1]}`, "", "INVALID_ARGUMENT", "1 to 128"},
		{"long id", `{"id":"` + long + `","model":"m","instances":[1]}`, "", "INVALID_ARGUMENT", "1 to 128"},
		{"id of another kind", `{"id":{},"model":"m","instances":[1]}`, "", "INVALID_ARGUMENT", `"id"`},
		{"no model", `{"id":"1","instances":[1]}`, "1", "INVALID_ARGUMENT", `"model"`},
		{"unknown model", `{"id":"1","model":"nobody","instances":[1]}`, "1", "NOT_FOUND", "nobody"},
		{"unknown version", `{"id":"1","model":"m","version":9,"instances":[1]}`, "1", "NOT_FOUND", ""},
		{"version and label", `{"id":"1","model":"m","version":3,"label":"l","instances":[1]}`, "1", "INVALID_ARGUMENT", "one of them"},
		{"wrong dtype", `{"id":"1","model":"m","instances":["x"]}`, "1", "INVALID_ARGUMENT", ""},
		{"wrong shape", `{"id":"1","model":"m","signature_name":"fixed","instances":[[1]]}`, "1", "INVALID_ARGUMENT", ""},
		{"no inputs", `{"id":"1","model":"m"}`, "1", "INVALID_ARGUMENT", ""},
		{"twice", `{"id":"1","model":"m","model":"m","instances":[1]}`, "1", "INVALID_ARGUMENT", "twice"},
		{"deadline of zero", `{"id":"1","model":"m","deadline_ms":0,"instances":[1]}`, "1", "INVALID_ARGUMENT", "deadline_ms"},
		{"unknown priority", `{"id":"1","model":"m","priority":"now","instances":[1]}`, "1", "INVALID_ARGUMENT", "priority"},
		{"drop and durable", `{"id":"1","model":"m","drop_oldest":true,"durable":true,"instances":[1]}`, "1", "INVALID_ARGUMENT", "never dropped"},
		{"cancel and request", `{"cancel":"1","model":"m"}`, "1", "INVALID_ARGUMENT", "at once"},
		{"ack below zero", `{"ack":-1}`, "", "INVALID_ARGUMENT", "ack"},
		{"durable without a queue", `{"id":"1","model":"m","durable":true,"instances":[1]}`, "1", "UNIMPLEMENTED", "no queue"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.t = t
			p.send(c.frame)
			p.fails(c.id, c.code, c.words)
			p.send(`{"id":"good","model":"m","instances":[1]}`) // the connection lives
			if got := p.recv(); !strings.Contains(got, `"predictions"`) {
				t.Errorf("after it: %s", got)
			}
		})
	}
	p.t = t
	_ = p.conn.WriteMessage(websocket.BinaryMessage, []byte{4})
	p.fails("", "INVALID_ARGUMENT", "1 bytes")
	_ = p.conn.WriteMessage(websocket.BinaryMessage, []byte{4, 0, 255, 0, '{', '}'})
	p.fails("", "INVALID_ARGUMENT", "255")
}

// TestBadConnections: what no request is to blame for.
func TestBadConnections(t *testing.T) {
	r := serve(t, Options{MaxFrame: 64 << 10})
	for _, c := range []struct {
		name, bytes string
		code        int
	}{
		{"not UTF-8", masked(0x81, "\"\xff\""), CloseNotUTF8},
		{"a message within a fragmented one", masked(0x01, "{") + masked(0x81, "}"), CloseProtocol},
		{"a continuation of nothing", masked(0x80, "}"), CloseProtocol},
		{"a reserved bit", masked(0xc1, "{}"), CloseProtocol},
		{"an unknown opcode", masked(0x83, "{}"), CloseProtocol},
		{"a fragmented ping", masked(0x09, ""), CloseProtocol},
		{"not masked", "\x81\x02{}", CloseProtocol},
		{"oversize", "\x81\xff\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00", CloseTooLarge},
		{"a length of 2^63", "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 0},
		{"bad frame after bad frame", strings.Repeat(masked(0x81, "{"), 1000), CloseBadFrames},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := r.raw(t)
			_ = conn.SetDeadline(time.Now().Add(patience))
			readUntil(t, conn, `"hello"`) // what comes before the handshake has ended is refused with it
			if _, err := conn.Write([]byte(c.bytes)); err != nil {
				t.Fatal(err)
			}
			if got := closeCode(conn); got != c.code {
				t.Errorf("closed with %d, want %d", got, c.code)
			}
		})
	}
	t.Run("text under inferd.v1.proto", func(t *testing.T) {
		p := r.dial(t, ProtoProtocol)
		p.t = t
		p.send("{}")
		p.closes(CloseKind)
	})
	t.Run("a ping between fragments", func(t *testing.T) { // is right
		conn := r.raw(t)
		_ = conn.SetDeadline(time.Now().Add(patience))
		readUntil(t, conn, `"hello"`)
		frame := `{"id":"1","model":"m","instances":[1]}`
		if _, err := fmt.Fprint(conn, masked(0x01, frame[:10]), masked(0x89, "p"), masked(0x80, frame[10:])); err != nil {
			t.Fatal(err)
		}
		if text := readUntil(t, conn, `"predictions"`); !strings.Contains(text, "\x8a\x01p") {
			t.Errorf("no pong in %q", text)
		}
	})
}

// readUntil reads what the server says up to the words.
func readUntil(t *testing.T, conn net.Conn, words string) string {
	t.Helper()
	var all []byte
	for b := make([]byte, 4096); !strings.Contains(string(all), words); {
		n, err := conn.Read(b)
		all = append(all, b[:n]...)
		if err != nil {
			t.Fatalf("%q, %v", all, err)
		}
	}
	return string(all)
}

// closeCode reads to the end, and is the code of the close frame that comes last, 0 where none does.
func closeCode(conn net.Conn) int {
	var all []byte
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		all = append(all, b[:n]...)
		at := strings.LastIndex(string(all), "\x88")
		if at >= 0 && len(all) >= at+4 && len(all) == at+2+int(all[at+1]) {
			return int(all[at+2])<<8 | int(all[at+3])
		}
		if err != nil {
			return 0 // without one
		}
	}
}
