// ws.go: a request over the WebSocket.
package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/websocket"
)

func (s *Server) streamDoors() []Door {
	return []Door{{Name: "WebSocket", Kind: Stream, Ask: s.stream}}
}

func (s *Server) stream(ctx context.Context, r *Request) (*Answer, error) {
	header := http.Header{}
	if r.Token != "" {
		header.Set("Authorization", "Bearer "+r.Token)
	}
	dialer := websocket.Dialer{Subprotocols: []string{"inferd.v1.json"}}
	conn, resp, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(s.HTTP, "http")+"/v1/stream", header)
	if resp != nil {
		defer func() { _ = resp.Body.Close() }() // gorilla has read what there is
	}
	if err != nil {
		if resp == nil {
			return nil, err
		}
		body, _ := io.ReadAll(resp.Body) // gorilla has read it
		return failure(reply{resp.StatusCode, resp.Header}, body)
	}
	defer func() { _ = conn.Close() }()
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(at)
	}
	frame := `{"id":"1"`
	for _, member := range [][2]string{{"model", r.Model}, {"label", r.Label}, {"priority", r.Priority}} {
		if member[1] != "" {
			frame += fmt.Sprintf(",%q:%q", member[0], member[1])
		}
	}
	if r.Version != 0 {
		frame += fmt.Sprintf(`,"version":%d`, r.Version)
	}
	if r.Deadline != 0 {
		frame += fmt.Sprintf(`,"deadline_ms":%s`, strconv.FormatFloat(r.Deadline.Seconds()*1000, 'f', -1, 64))
	}
	plain := *r
	plain.Garbage, plain.Large = false, 0
	body := []byte(frame + "," + string(plain.columns()[1:]))
	if err := conn.WriteMessage(websocket.TextMessage, r.spoil(body, ' ')); err != nil {
		return nil, err
	}
	for {
		_, message, err := conn.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) {
			return &Answer{Closed: closed.Code, Text: closed.Text}, nil
		}
		if err != nil {
			return nil, err
		}
		var m struct {
			Error, Code, Reason string
			Outputs             any
		}
		if err := parse(message, &m); err != nil {
			return nil, fmt.Errorf("%w: %.300s", err, message)
		}
		switch {
		case m.Error != "":
			a := &Answer{Reason: m.Reason, Text: m.Error}
			if a.Code, err = codeOf(m.Code); err != nil {
				return nil, err
			}
			return a, nil
		case m.Outputs != nil:
			return columnOutputs(m.Outputs)
		}
	}
}
