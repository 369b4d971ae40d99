// stream_test.go: requests, answers, order, credits, cancellation, deadlines and live sources.
package ws

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
)

func contextWithTimeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func TestPredict(t *testing.T) {
	r := serve(t, Options{})
	for _, protocol := range []string{JSONProtocol, ""} {
		p := r.dial(t, protocol)
		if p.say.credits != DefaultCredits || p.say.maxFrame != DefaultMaxFrame || p.say.idle != DefaultIdle || len(p.say.session) != 32 {
			t.Errorf("greeted with %+v", p.say)
		}
		p.send(`{"id":"1","model":"m","instances":[1,2.5]}`)
		p.want(`{"id":"1","version":3,"predictions":[1.0,2.5]}`)
		p.send(`{"model":"m","inputs":{"x":[4]},"id":17,"version":3,"deadline_ms":9999.5,"priority":"interactive","more":{"a":["]"]}}`)
		p.want(`{"id":"17","version":3,"outputs":[4.0]}`)
		p.send(`{"id":"a\"\u00e9","model":"m","signature_name":"two","instances":[{"x":1,"z":2}]}`)
		p.want(`{"id":"a\"é","version":3,"predictions":[{"w":1.0,"y":2.0}]}`)
		p.send(`{"id":"2","model":"n","instances":[1]}`)
		p.fails("2", "NOT_FOUND", "n")
		p.send(`{"id":"3","model":"m","version":4,"instances":[1]}`)
		p.fails("3", "NOT_FOUND", "4")
		_ = p.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "bye"), time.Now().Add(patience))
		p.closes(1000)
	}
	r.ends(t, 1000, 2)
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[api.Observation]int{}
	for _, o := range r.observed {
		o.Took = 0
		count[o]++
	}
	of := api.Observation{Protocol: "stream", Method: "predict", Model: "m", Version: 3, Signature: "serving_default"}
	two, unknown, gone := of, of, of
	two.Signature = "two"
	unknown.Model, unknown.Version, unknown.Signature, unknown.Code, unknown.Reason = "", 0, "", inference.NotFound, "model"
	gone.Version, gone.Signature, gone.Code, gone.Reason = 0, "", inference.NotFound, "model"
	if want := map[api.Observation]int{of: 4, two: 2, unknown: 2, gone: 2}; !maps.Equal(count, want) {
		t.Errorf("observed %+v, want %+v", count, want)
	}
}

// The first is held; the others pass it, but for those that are ordered.
func TestAnswersPassOneAnother(t *testing.T) {
	r := serve(t, Options{})
	slow := &fake.Model{}
	slow.Width = 4
	r.publish("slow", 1, slow)
	release := slow.Hold()
	p := r.dial(t, JSONProtocol)
	p.send(`{"id":"1","model":"slow","instances":[1]}`)
	p.send(`{"id":"2","model":"m","instances":[2]}`)
	p.want(`{"id":"2","version":3,"predictions":[2.0]}`)
	p.send(`{"id":"3","model":"slow","ordered":true,"instances":[3]}`)
	p.send(`{"id":"4","model":"m","ordered":true,"instances":[4]}`)
	p.send(`{"id":"5","model":"n","ordered":true,"instances":[5]}`)
	p.send(`{"id":"6","model":"m","ordered":true,"instances":[6]}`)
	p.send(`{"id":"7","model":"m","instances":[7]}`)
	p.want(`{"id":"7","version":3,"predictions":[7.0]}`)
	poll(t, "the ordered ones", func() bool { return r.h.Stats().InFlight == 2 })
	release()
	var got []string
	for range 5 {
		var m struct{ ID string }
		if err := json.Unmarshal([]byte(p.recv()), &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m.ID)
	}
	all := strings.Join(got, "")
	if ordered := strings.ReplaceAll(all, "1", ""); ordered != "3456" || len(all) != 5 {
		t.Errorf("answered in the order %s", all)
	}
}

func TestCredits(t *testing.T) {
	r := serve(t, Options{Credits: 4})
	release := r.model.Hold()
	p := r.dial(t, JSONProtocol)
	for i := range 4 {
		p.send(fmt.Sprintf(`{"id":"%d","model":"m","instances":[%d]}`, i, i))
	}
	poll(t, "four in flight", func() bool { return r.h.Stats().InFlight == 4 })
	release()
	answers, granted := 0, 0
	for answers < 4 {
		_, frame, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		var m struct{ Credits int }
		if err := json.Unmarshal(frame, &m); err != nil {
			t.Fatal(err)
		}
		if granted += m.Credits; m.Credits == 0 {
			answers++
		}
	}
	// What is not granted yet comes with a later answer; each costs one and brings one.
	for i := range 20 {
		p.send(fmt.Sprintf(`{"id":"%d","model":"m","instances":[%d]}`, i, i))
		for got := 0; got == 0; {
			_, frame, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			var m struct{ Credits int }
			if err := json.Unmarshal(frame, &m); err != nil {
				t.Fatal(err)
			}
			if granted += m.Credits; m.Credits == 0 {
				got++
			}
		}
	}
	if left := 4 + granted - 24; left < 1 || left > 4 {
		t.Errorf("%d credits are left after 24 answers", left)
	}
	release = r.model.Hold()
	for i := range 5 {
		p.send(fmt.Sprintf(`{"id":"x%d","model":"m","instances":[%d]}`, i, i))
	}
	p.closes(CloseNoCredit)
	release()
	r.ends(t, CloseNoCredit, 1)
}

func TestCancelAndDeadline(t *testing.T) {
	r := serve(t, Options{})
	release := r.model.Hold()
	p := r.dial(t, JSONProtocol)
	p.send(`{"id":"1","model":"m","instances":[1]}`)
	p.send(`{"cancel":"never"}`)
	p.send(`{"cancel":"1"}`)
	p.fails("1", "CANCELLED", "cancelled")
	p.send(`{"id":"1","model":"m","deadline_ms":20,"instances":[1]}`)
	p.fails("1", "DEADLINE_EXCEEDED", "")
	p.send(`{"id":"1","model":"m","ordered":true,"instances":[1]}`)
	p.send(`{"cancel":"1"}`)
	p.fails("1", "CANCELLED", "")
	release()
	p.send(`{"id":"1","model":"m","ordered":true,"instances":[5]}`)
	p.want(`{"id":"1","version":3,"predictions":[5.0]}`)
}

// Of a live source two requests are with the model, and of those that wait only the newest stays.
func TestDropOldest(t *testing.T) {
	r := serve(t, Options{})
	release := r.model.Hold()
	p := r.dial(t, JSONProtocol)
	for i := range 6 {
		p.send(fmt.Sprintf(`{"id":"%d","model":"m","drop_oldest":true,"instances":[%d]}`, i, i))
	}
	for _, id := range []string{"2", "3", "4"} {
		p.fails(id, "ABORTED", "newer")
	}
	if s := r.h.Stats(); s.Dropped != 3 || s.InFlight != 3 {
		t.Errorf("%+v", s)
	}
	release()
	got := map[string]bool{p.recv(): true, p.recv(): true, p.recv(): true}
	for _, i := range []int{0, 1, 5} {
		if !got[fmt.Sprintf(`{"id":"%d","version":3,"predictions":[%d.0]}`, i, i)] {
			t.Errorf("no answer to %d in %v", i, got)
		}
	}
	poll(t, "the source's rest", func() bool {
		c := r.h.all()[0]
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.lives) == 0
	})
	release = r.model.Hold()
	for i := range 3 {
		p.send(fmt.Sprintf(`{"id":"%d","model":"m","drop_oldest":true,"instances":[%d]}`, i, i))
	}
	p.send(`{"cancel":"2"}`)
	p.fails("2", "CANCELLED", "")
	_ = p.conn.Close() // with requests in flight
	r.ends(t, 1006, 1)
	release()
}

func TestProto(t *testing.T) {
	r := serve(t, Options{})
	p := r.knock(t, ProtoProtocol)
	exchange := func(frame string) (kind int, answer []byte) {
		t.Helper()
		if frame != "" {
			if err := p.conn.WriteMessage(websocket.BinaryMessage, []byte(frame)); err != nil {
				t.Fatal(err)
			}
		}
		kind, answer, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		return kind, answer
	}
	if kind, hello := exchange(""); kind != websocket.BinaryMessage || hello[0] != 1<<3|2 || !strings.Contains(string(hello), "\x10@") {
		t.Errorf("greeted with %q", hello)
	}
	// model_spec{name:m}, inputs{x: float [2] 1,2}
	tensorProto := "\x08\x01\x12\x04\x12\x02\x08\x02\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\x40"
	entry := "\x0a\x01x\x12" + string(rune(len(tensorProto))) + tensorProto
	predict := "\x0a\x03\x0a\x01m\x12" + string(rune(len(entry))) + entry
	request := "\x0a\x021a\x12" + string(rune(len(predict))) + predict
	_, answer := exchange("\x0a" + string(rune(len(request))) + request)
	if got := fmt.Sprintf("%q", answer); !strings.HasPrefix(got, `"\x12`) || !strings.Contains(got, `\n\x021a\x18\x03\"`) || !strings.Contains(got, "\\x00\\x00\\x80?\\x00\\x00\\x00@") {
		t.Errorf("answered with %s", got)
	}
	_, answer = exchange("\x12\x00")
	if got := string(answer); !strings.Contains(got, "the id is") {
		t.Errorf("an empty cancel was answered with %q", got)
	}
	if err := p.conn.WriteMessage(websocket.TextMessage, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	p.closes(CloseKind)
}

// binaryFrame is a frame of kind with a header.
func binaryFrame(kind byte, header, payload string) []byte {
	return append([]byte{kind, 0, byte(len(header)), byte(len(header) >> 8)}, header+payload...)
}

func TestRaw(t *testing.T) {
	r := serve(t, Options{})
	p := r.dial(t, JSONProtocol)
	send := func(kind byte, header, payload string) {
		t.Helper()
		if err := p.conn.WriteMessage(websocket.BinaryMessage, binaryFrame(kind, header, payload)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(header, payload string) {
		t.Helper()
		kind, frame, err := p.next()
		if err != nil || kind != websocket.BinaryMessage {
			t.Fatalf("got %q, %v", frame, err)
		}
		k, h, body, bad := splitBinary(frame)
		if bad != nil || k != 4 || strings.TrimRight(string(h), " ") != header || string(body) != payload || (len(frame)-len(body))%8 != 0 {
			t.Errorf("got %q, %v", frame, bad)
		}
	}
	floats := "\x00\x00\x80\x3f\x00\x00\x00\x40"
	send(4, `{"id":"1","model":"m"}`, floats)
	want(`{"id":"1","version":3,"outputs":[{"name":"y","dtype":"DT_FLOAT","shape":[2]}]}`, floats)
	send(4, `{"id":"2","model":"m","signature_name":"fixed","dtype":"float"}`, floats+floats)
	want(`{"id":"2","version":3,"outputs":[{"name":"y","dtype":"DT_FLOAT","shape":[2,2]}]}`, floats+floats)
	send(4, `{"id":"3","model":"m","signature_name":"open","shape":[1, 2]}`, floats)
	want(`{"id":"3","version":3,"outputs":[{"name":"y","dtype":"DT_FLOAT","shape":[1,2]}]}`, floats)
	// A PredictRequest in a binary frame; its own model counts where the header has none.
	predict := "\x0a\x03\x0a\x01m\x12\x13\x0a\x01x\x12\x0e\x08\x01\x12\x04\x12\x02\x08\x01\x2a\x04\x00\x00\x80\x3f"
	send(2, `{"id":"4"}`, predict)
	kind, frame, err := p.next()
	if k, h, body, bad := splitBinary(frame); err != nil || bad != nil || kind != websocket.BinaryMessage || k != 2 || strings.TrimRight(string(h), " ") != `{"id":"4","version":3}` || !strings.Contains(string(body), "\x00\x00\x80\x3f") {
		t.Errorf("got %q, %v, %v", frame, err, bad)
	}
	for header, words := range map[string]string{
		`{"id":"9","model":"m","signature_name":"fixed"}`:                          "does not have 8 bytes",
		`{"id":"9","model":"m","signature_name":"open"}`:                           "more than one open dimension",
		`{"id":"9","model":"m","signature_name":"pair"}`:                           "multiple of 12 bytes",
		`{"id":"9","model":"m","signature_name":"text"}`:                           "no raw form",
		`{"id":"9","model":"m","signature_name":"two"}`:                            "takes 2 inputs",
		`{"id":"9","model":"m","signature_name":"none"}`:                           "not found",
		`{"id":"9","model":"m","dtype":"int32"}`:                                   "says DT_INT32",
		`{"id":"9","model":"m","dtype":"what"}`:                                    "dtype",
		`{"id":"9","model":"m","shape":[3]}`:                                       "does not have 8 bytes",
		`{"id":"9","model":"m","shape":[-1]}`:                                      "shape",
		`{"id":"9","model":"m","shape":[9223372036854775807,9223372036854775807]}`: "overflow",
		`{"id":"9","model":"m","instances":[1]}`:                                   "but for its inputs",
	} {
		send(4, header, floats)
		p.fails("9", "INVALID_ARGUMENT", words)
	}
	send(1, `{"id":"9","model":"m"}`, "")
	p.fails("9", "INVALID_ARGUMENT", "kind 1")
	send(3, `{"id":"9","model":"m"}`, "")
	p.fails("9", "UNIMPLEMENTED", "kind 3")
}

func TestHandshake(t *testing.T) {
	r := serve(t, Options{Origins: []string{"https://page.example"}, Connections: 2})
	try := func(change func(http.Header)) (int, string) {
		h := http.Header{}
		change(h)
		d := websocket.Dialer{}
		conn, resp, err := d.Dial("ws"+strings.TrimPrefix(r.URL, "http"), h)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		defer func() { _ = resp.Body.Close() }()
		var m struct{ Error string }
		_ = json.NewDecoder(resp.Body).Decode(&m)
		return resp.StatusCode, m.Error
	}
	for _, c := range []struct {
		name, value string
		status      int
		words       string
	}{
		{"Origin", "https://other.example", 403, "stream.origins"},
		{"Origin", "null", 403, "null"},
		{"Sec-WebSocket-Protocol", "mqtt, soap", 400, "mqtt"},
		{"Origin", "https://PAGE.example", 101, ""},
		{"Origin", r.URL, 101, ""}, // its own
		{"X-Nothing", "1", 503, "stream.max_connections"},
	} {
		if status, text := try(func(h http.Header) { h.Set(c.name, c.value) }); status != c.status || !strings.Contains(text, c.words) {
			t.Errorf("%s: %s: %d %s", c.name, c.value, status, text)
		}
	}
	resp, err := http.Get(r.URL + "/v1/stream")
	if err != nil || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
}

// The reader of a client that waits for each answer serves itself, and is relieved when that takes long: what comes meanwhile is read.
func TestReaderIsRelieved(t *testing.T) {
	r := serve(t, Options{})
	p := r.dial(t, JSONProtocol)
	for round := range 3 {
		for i := range 2 * singles {
			p.send(fmt.Sprintf(`{"id":"1","model":"m","instances":[%d]}`, i))
			p.want(fmt.Sprintf(`{"id":"1","version":3,"predictions":[%d.0]}`, i))
		}
		release := r.model.Hold()
		p.send(`{"id":"held","model":"m","instances":[1]}`)
		p.send(`{"cancel":"held"}`)
		p.fails("held", "CANCELLED", "")
		release()
		if round == 2 {
			_ = p.conn.Close()
		}
	}
	r.ends(t, 1006, 1)
}
