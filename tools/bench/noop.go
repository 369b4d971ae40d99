// noop.go: the handlers that do nothing, on the servers that inferd uses.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/tools/measure"
)

// fixedCodec reads nothing of a message, which has been received whole by then, and sends the same bytes each time.
type fixedCodec struct{ measure.RawCodec }

func (fixedCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// noop serves, in a process of its own, the two handlers that do nothing: each reads the whole request and writes a fixed answer of the
// given size, on servers made as the appliance makes its own. It prints its two addresses and ends when standard input does.
func noop(answerHTTP, answerGRPC int) error {
	hl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	gl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := bytes.Repeat([]byte("x"), answerHTTP)
	go func() {
		_ = appliance.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		})).Serve(hl)
	}()
	fixed := bytes.Repeat([]byte("x"), answerGRPC)
	s := grpc.NewServer(append(rpc.ServerOptions(rpc.Options{}), grpc.ForceServerCodecV2(fixedCodec{}))...)
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "tensorflow.serving.PredictionService", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Predict",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(nil); err != nil {
				return nil, err
			}
			return &fixed, nil
		},
	}}}, nil)
	go func() { _ = s.Serve(gl) }()
	fmt.Println(hl.Addr(), gl.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}
