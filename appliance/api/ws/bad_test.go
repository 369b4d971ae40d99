// bad_test.go: what no good client sends.
package ws

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/api/rpc"
)

func TestBadFrames(t *testing.T) {
	r := serve(t, Options{})
	p := r.dial(t, JSONProtocol)
	for i, c := range []struct{ frame, id, words string }{
		{``, "", "not one JSON object"}, {`[]`, "", "not one JSON object"}, {`{"id":"1"`, "1", "not one JSON object"}, {`{"id":"1"} x`, "1", "not one JSON object"},
		{`{}`, "", "none of those known"}, {`{"hello":1}`, "", "none of those known"}, {`{"id":"1"}`, "1", "model"}, {`{"model":"m","instances":[1]}`, "", "no \"id\""},
		{`{"id":"","model":"m","instances":[1]}`, "", "id"}, {`{"id":["1"],"model":"m"}`, "", "id"}, {`{"id":"` + strings.Repeat("x", 129) + `","model":"m"}`, "", "id"},
		{`{"id":"1","id":"2","model":"m"}`, "1", "twice"}, {`{"id":"1","model":7}`, "1", "model"}, {`{"id":"1","model":"m","version":1.5}`, "1", "version"},
		{`{"id":"1","model":"m","version":1,"label":"x"}`, "1", "one of them"}, {`{"id":"1","model":"m","deadline_ms":-1}`, "1", "deadline_ms"},
		{`{"id":"1","model":"m","priority":"now"}`, "1", "priority"}, {`{"id":"1","model":"m","durable":1}`, "1", "durable"},
		{`{"id":"1","model":"m","durable":true,"drop_oldest":true}`, "1", "never dropped"}, {`{"cancel":"1","model":"m"}`, "1", "a cancel at once"},
		{`{"ack":-1}`, "", "ack"}, {`{"resume":"s"}`, "", "resume"},
		{`{"id":"1","model":"m","instances":["x"]}`, "1", "not of expected type"}, {`{"id":"1","model":"m","instances":[[1]]}`, "1", "shape"},
		{`{"id":"1","model":"m","instances":[1}`, "1", ""}, {`{"id":"1","model":"m"}`, "1", "Missing"},
	} {
		p.send(c.frame)
		p.fails(c.id, "INVALID_ARGUMENT", c.words)
		if i%8 == 0 { // so that they are not too many in a row
			p.send(`{"id":"good","model":"m","instances":[1]}`)
			p.want(`{"id":"good","version":3,"predictions":[1.0]}`)
		}
	}
	release := r.model.Hold()
	p.send(`{"id":"1","model":"m","instances":[1]}`)
	p.send(`{"id":"1","model":"m","instances":[2]}`)
	p.fails("1", "ALREADY_EXISTS", "in flight already")
	release()
	p.want(`{"id":"1","version":3,"predictions":[1.0]}`)
	for range maxBad + 1 {
		p.send(`{}`)
	}
	p.closes(CloseBadFrames)
}

func TestBrokenFrames(t *testing.T) {
	r := serve(t, Options{MaxFrame: 1 << 10})
	for name, c := range map[string]struct {
		bytes string
		code  int
	}{
		"in the middle of a fragmented one": {"\x01\x81\x00\x00\x00\x00{\x81\x81\x00\x00\x00\x00}", CloseProtocol},
		"unmasked":                          {"\x81\x02{}", CloseProtocol},
		"reserved bit":                      {"\xc1\x82\x00\x00\x00\x00{}", CloseProtocol},
		"unknown opcode":                    {"\x83\x80\x00\x00\x00\x00", CloseProtocol},
		"not UTF-8":                         {"\x81\x81\x00\x00\x00\x00\xff", CloseNotUTF8},
		"oversize":                          {"\x81\xfe\x04\x01\x00\x00\x00\x00" + strings.Repeat(" ", 1025), CloseTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.raw(t)
			if _, err := conn.Write([]byte(c.bytes)); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			var got strings.Builder
			buf := make([]byte, 4096)
			for !strings.Contains(got.String(), string([]byte{byte(c.code >> 8), byte(c.code)})) {
				n, err := conn.Read(buf)
				got.Write(buf[:n])
				if err != nil {
					t.Fatalf("%q, %v", got.String(), err)
				}
			}
			_ = conn.Close()
		})
	}
}

// A client that does not read is told and closed; what is booked for it comes back.
func TestSlowReader(t *testing.T) {
	r := serve(t, Options{Slow: 400 * time.Millisecond, Outbox: 64 << 10, MaxFrame: 4 << 20})
	p := r.dial(t, JSONProtocol)
	big := `"model":"m","instances":[` + strings.Repeat("1,", 300_000) + `1]}`
	for i := range 30 {
		p.send(fmt.Sprintf(`{"id":"%d",%s`, i, big))
	}
	poll(t, "the close", func() bool {
		c := r.h.all()[0]
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.closing
	})
	_ = p.conn.Close() // or the close frame would be waited for
	r.ends(t, CloseSlow, 1)
	if s := r.h.Stats(); s.Slow != 1 {
		t.Errorf("told %d times", s.Slow)
	}
}

func TestPingAndIdle(t *testing.T) {
	r := serve(t, Options{Ping: 30 * time.Millisecond, Idle: 300 * time.Millisecond})
	p := r.dial(t, JSONProtocol)
	pings := 0
	p.conn.SetPingHandler(func(string) error { pings++; return nil }) // and no pong
	p.closes(CloseIdle)
	if pings == 0 {
		t.Error("no ping")
	}
}

func TestDrain(t *testing.T) {
	draining := make(chan struct{})
	r := serve(t, Options{Draining: draining})
	release := r.model.Hold()
	p := r.dial(t, JSONProtocol)
	p.send(`{"id":"1","model":"m","instances":[1]}`)
	poll(t, "the request", func() bool { return r.h.Stats().InFlight == 1 })
	close(draining)
	p.want(`{"draining":true}`)
	release()
	p.want(`{"id":"1","version":3,"predictions":[1.0]}`)
	p.closes(CloseDraining)
}

func FuzzFrame(f *testing.F) {
	for _, s := range []string{`{"id":"1","model":"m","instances":[1]}`, `{"resume":{"session":"s","after":1}}`, `{"ack":1}`, `{"cancel":"\u0031"}`, `{"id":1e9,"model":"\"","inputs":{"a":["]"]}`,
		"\x04\x00\x16\x00{\"id\":\"1\",\"model\":\"m\"}\x00\x00\x80\x3f", "\x0a\x09\x0a\x011\x12\x04\x0a\x02\x0a\x00", "\x12\x011", "\x18\x05"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, frame []byte, text bool) {
		for _, w := range []wire{jsonWire{}, protoWire{}} {
			var m message
			if err := w.parse(frame, text, &m, rpc.ReadSpec); err != nil {
				if err.Msg == "" || len(w.appendError(nil, reply{id: m.id}, err)) == 0 {
					t.Fatal("an error without a word")
				}
				continue
			}
			if m.act == 0 || m.act == actPredict && (m.id == "" || len(m.id) > maxID) {
				t.Fatalf("accepted as %+v", m)
			}
		}
	})
}

func FuzzBinaryHeader(f *testing.F) {
	f.Add(binaryFrame(4, `{"shape":[1,2],"dtype":"float"}`, "12345678"))
	f.Add(binaryFrame(4, `{"signature_name":"fixed"}`, "1234567812345678"))
	v := testVersion()
	f.Fuzz(func(t *testing.T, frame []byte) {
		call, err := NewRawCodec().Decode(frame, v)
		if err == nil {
			if in := call.Request().Inputs[0]; in.Bytes() > int64(len(frame)) {
				t.Fatalf("%d bytes of a frame of %d", in.Bytes(), len(frame))
			}
			call.Free()
		}
	})
}
