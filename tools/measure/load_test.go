// load_test.go: the load generators against real servers, and what they make of wrong answers.
package measure

import (
	"bufio"
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestLightCallerGetsTheAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var fail bool
	s := grpc.NewServer(grpc.ForceServerCodecV2(RawCodec{}))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "bench.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in []byte
			if err := decode(&in); err != nil {
				return nil, err
			}
			if fail {
				return nil, status.Error(codes.InvalidArgument, "no")
			}
			return &in, nil
		},
	}}}, nil)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		s.Stop()
		<-done
	}()
	message := strings.Repeat("m", 9000)
	c, err := DialLight(l.Addr().String(), "/bench.Echo/Echo", []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i := range 50 { // far more than a connection's first window
		if err := c.Call(); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		if string(c.Answer) != message {
			t.Fatalf("call %d was answered with %d bytes", i, len(c.Answer))
		}
	}
	fail = true
	if err := c.Call(); err == nil || !strings.Contains(err.Error(), `status "3": no`) {
		t.Fatalf("an error of the server became %v", err)
	}
}

func TestReadResponse(t *testing.T) {
	for name, c := range map[string]struct{ text, err string }{
		"length":  {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", ""},
		"chunks":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ""},
		"small":   {"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", ""},
		"refused": {"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nabc", "503"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bufio.NewReader(strings.NewReader(c.text + "next"))
			err := readResponse(r)
			if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %v", err)
			}
			if rest, _ := r.ReadString(0); rest != "next" {
				t.Fatalf("left %q in the connection", rest)
			}
		})
	}
}
