// h2.go: a gRPC caller that does no more than the protocol asks, so that the figure is the server's and not the client's.
package measure

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// MaxLight is the largest message of a LightCaller: it fits one frame and the windows that every server opens with.
const MaxLight = 16 << 10

// Light is one HTTP/2 connection with one call on it at a time.
type Light struct {
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	framer  *http2.Framer
	fields  []hpack.HeaderField
	encoder *hpack.Encoder
	block   bytes.Buffer
	decoder *hpack.Decoder
	message []byte // with gRPC's five bytes before it
	stream  uint32
	unacked uint32 // bytes of answers that the server's window still counts
	status  string
	text    string
	Answer  []byte // of the latest call
}

// DialLight opens a connection that sends message to method.
func DialLight(address, method string, message []byte) (*Light, error) {
	if len(message)+5 > MaxLight {
		return nil, fmt.Errorf("a message of %d bytes is too long for the light caller", len(message))
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	l := &Light{conn: conn, r: bufio.NewReaderSize(conn, 32<<10), w: bufio.NewWriterSize(conn, 32<<10), stream: 1}
	l.framer = http2.NewFramer(l.w, l.r)
	l.framer.SetReuseFrames()
	l.encoder = hpack.NewEncoder(&l.block)
	l.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			l.status = f.Value
		case "grpc-message":
			l.text = f.Value
		}
	})
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "bench"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		l.fields = append(l.fields, hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	l.message = binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	l.message = append(l.message, message...)
	_, _ = l.w.WriteString(http2.ClientPreface) // bufio keeps the error for Flush
	if err := l.framer.WriteSettings(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return l, nil
}

// Call makes one call and leaves the message that came back in l.Answer.
func (l *Light) Call() error {
	l.block.Reset()
	for _, f := range l.fields {
		if err := l.encoder.WriteField(f); err != nil {
			return err
		}
	}
	id := l.stream
	l.stream += 2
	if err := l.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: l.block.Bytes(), EndHeaders: true}); err != nil {
		return err
	}
	if err := l.framer.WriteData(id, true, l.message); err != nil {
		return err
	}
	if l.unacked > MaxLight {
		if err := l.framer.WriteWindowUpdate(0, l.unacked); err != nil {
			return err
		}
		l.unacked = 0
	}
	if err := l.w.Flush(); err != nil {
		return err
	}
	l.Answer, l.status, l.text = l.Answer[:0], "", ""
	for {
		ended, err := l.frame()
		if err != nil {
			return err
		}
		if ended {
			return l.end()
		}
	}
}

// frame takes one frame: it answers what is the connection's, adds to l.Answer what is the call's, and reports whether the call has ended.
func (l *Light) frame() (ended bool, err error) {
	frame, err := l.framer.ReadFrame()
	if err != nil {
		return false, err
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			err = l.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			if err = l.framer.WritePing(true, f.Data); err == nil {
				err = l.w.Flush()
			}
		}
	case *http2.DataFrame:
		l.unacked += f.Length
		l.Answer = append(l.Answer, f.Data()...)
	case *http2.HeadersFrame:
		_, err = l.decoder.Write(f.HeaderBlockFragment())
		ended = f.StreamEnded()
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		err = fmt.Errorf("the server ended the call: %v", f)
	}
	return ended, err
}

// Close closes the connection.
func (l *Light) Close() error { return l.conn.Close() }

// end checks the trailers and takes the five bytes off the answer.
func (l *Light) end() error {
	if l.status != "0" {
		return fmt.Errorf("answered with gRPC status %q: %s", l.status, l.text)
	}
	if len(l.Answer) < 5 || int(binary.BigEndian.Uint32(l.Answer[1:])) != len(l.Answer)-5 {
		return fmt.Errorf("an answer of %d bytes that is no gRPC message", len(l.Answer))
	}
	l.Answer = l.Answer[5:]
	return nil
}

// LightCaller sends the same small message again and again over one connection of its own.
func LightCaller(address, method string, message []byte) Caller {
	return func(int) (func() error, func(), error) {
		l, err := DialLight(address, method, message)
		if err != nil {
			return nil, nil, err
		}
		return l.Call, func() { _ = l.Close() }, nil
	}
}
