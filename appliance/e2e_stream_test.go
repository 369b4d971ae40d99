// e2e_stream_test.go: every exchange of docs/streaming.md, against a real appliance.
package appliance

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// wireBlock is one example of the page.
var wireBlock = regexp.MustCompile("(?s)```wire ?([a-z0-9.]*)\n(.*?)```")

// TestStreamingPage: what the page shows is what inferd says.
func TestStreamingPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "streaming.md"))
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(cfg *config.Config) {
		mediaModels(cfg)
		cfg.Models = cfg.Models[1:] // level
	})
	s.publish("half_plus_two", 1, modeltest.HalfPlusTwo())
	s.publish("level", 1, modeltest.Level())
	s.publish("sleepy", 1, modeltest.Sleepy())
	for _, name := range []string{"half_plus_two", "level", "sleepy"} {
		s.live(name, 1)
	}
	blocks := wireBlock.FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 8 {
		t.Fatalf("the page has %d examples", len(blocks))
	}
	for i, b := range blocks {
		t.Run(strconv.Itoa(i+1), func(t *testing.T) {
			x := &exchange{t: t, address: "ws" + strings.TrimPrefix(s.http, "http") + streamPath, protocol: b[1], known: map[string]string{}}
			x.connect()
			defer func() { _ = x.conn.Close() }()
			for _, line := range strings.Split(strings.TrimSpace(b[2]), "\n") {
				x.line(line)
			}
		})
	}
}

// exchange is an example that is being run.
type exchange struct {
	t                 *testing.T
	address, protocol string
	conn              *websocket.Conn
	known             map[string]string // what SESSION and JOB stand for
}

func (x *exchange) connect() {
	x.t.Helper()
	d := websocket.Dialer{HandshakeTimeout: time.Minute}
	if x.protocol != "" {
		d.Subprotocols = []string{x.protocol}
	}
	conn, resp, err := d.Dial(x.address, nil)
	if err != nil {
		x.t.Fatal(err)
	}
	_ = resp.Body.Close()
	x.conn = conn
}

// fill puts what is known in the place of the names.
func (x *exchange) fill(text string) string {
	for name, value := range x.known {
		text = strings.ReplaceAll(text, name, value)
	}
	return text
}

func (x *exchange) line(line string) {
	x.t.Helper()
	what, ours := strings.CutPrefix(line, "> ")
	switch {
	case !ours:
		x.wants(strings.TrimPrefix(line, "< "))
	case what == "connect":
		_ = x.conn.Close()
		x.connect()
	case strings.HasPrefix(what, "close "):
		code, _ := strconv.Atoi(what[len("close "):])
		x.write(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""))
	case strings.HasPrefix(what, "hex "):
		x.write(websocket.BinaryMessage, x.bytes(what[len("hex "):]))
	case strings.HasPrefix(what, "text "):
		x.write(websocket.TextMessage, []byte(what[len("text "):]))
	case what[0] == '[':
		x.write(websocket.BinaryMessage, x.binary(what))
	default:
		x.write(websocket.TextMessage, []byte(x.fill(what)))
	}
}

func (x *exchange) write(kind int, frame []byte) {
	x.t.Helper()
	if err := x.conn.WriteMessage(kind, frame); err != nil {
		x.t.Fatal(err)
	}
}

func (x *exchange) bytes(text string) []byte {
	x.t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		x.t.Fatalf("%s: %v", text, err)
	}
	return b
}

// binary is the frame that is written as [kind] header | payload.
func (x *exchange) binary(text string) []byte {
	x.t.Helper()
	head, payload, ok := strings.Cut(text[len("[4] "):], " |")
	if !ok {
		x.t.Fatalf("%s has no payload", text)
	}
	frame := binary.LittleEndian.AppendUint16([]byte{text[1] - '0', 0}, uint16(len(head)))
	return append(append(frame, head...), x.bytes(payload)...)
}

// wants holds the next frame that only gives no credits against a line.
func (x *exchange) wants(want string) {
	x.t.Helper()
	got := x.next()
	pattern := regexp.QuoteMeta(x.fill(want))
	pattern = strings.ReplaceAll(pattern, `\.\.\.`, `.*`)
	for _, name := range []string{"SESSION", "JOB"} {
		pattern = strings.ReplaceAll(pattern, name, "(?P<"+name+">[0-9a-f-]+)")
	}
	re, err := regexp.Compile("(?s)^" + pattern + "$")
	if err != nil {
		x.t.Fatal(err)
	}
	m := re.FindStringSubmatch(got)
	if m == nil {
		x.t.Fatalf("got  %s\nwant %s", got, want)
	}
	for i, name := range re.SubexpNames() {
		if name != "" {
			x.known[name] = m[i]
		}
	}
}

// next is a frame as the page would write it.
func (x *exchange) next() string {
	x.t.Helper()
	for {
		_ = x.conn.SetReadDeadline(time.Now().Add(time.Minute))
		kind, frame, err := x.conn.ReadMessage()
		var closed *websocket.CloseError
		switch {
		case errors.As(err, &closed):
			return "close " + strconv.Itoa(closed.Code)
		case err != nil:
			x.t.Fatal(err)
		case kind == websocket.TextMessage && !strings.HasPrefix(string(frame), `{"credits":`):
			return string(frame)
		case kind == websocket.BinaryMessage && x.protocol != "":
			return "hex " + spaced(frame)
		case kind == websocket.BinaryMessage:
			end := 4 + int(binary.LittleEndian.Uint16(frame[2:]))
			if end%8 != 0 {
				x.t.Errorf("the payload begins at %d", end)
			}
			return "[" + strconv.Itoa(int(frame[0])) + "] " + strings.TrimRight(string(frame[4:end]), " ") + " | " + spaced(frame[end:])
		}
	}
}

func spaced(b []byte) string {
	var out []string
	for i := range b {
		out = append(out, hex.EncodeToString(b[i:i+1]))
	}
	return strings.Join(out, " ")
}
