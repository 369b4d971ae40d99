// deadline.go: gRPC by hand over HTTP/2. A client's library lets go of a call whose deadline is over; what inferd says to it is seen only by one that
// goes on listening.
package conform

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	gproto "google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference"
)

// seconds is the deadline as the header Request-Timeout has it.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// grpcTimeout is the deadline as grpc-timeout has it, in at most 8 digits.
func grpcTimeout(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%dS", d/time.Second)
	}
	return fmt.Sprintf("%dn", d.Nanoseconds())
}

// withoutStatus is what a client takes an answer for that HTTP alone refused: of 400, gRPC says, INTERNAL.
func withoutStatus(status int, body []byte) (*Answer, error) {
	if status != http.StatusBadRequest {
		return nil, fmt.Errorf("status %d without one of gRPC: %.300s", status, body)
	}
	return &Answer{Code: inference.Internal, Text: strings.TrimSpace(string(body))}, nil
}

// patientCall sends one message to a method and reads the one that comes back, however long ago its deadline was.
func (r *Request) patientCall(ctx context.Context, conn *grpc.ClientConn, method string, message []byte) ([]byte, *Answer, error) {
	network, address := "tcp", strings.TrimPrefix(conn.Target(), "dns:///")
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		network, address = "unix", path
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://inferd"+method, strings.NewReader(string(frame)))
	if err != nil {
		return nil, nil, err
	}
	for k, v := range map[string]string{"Content-Type": "application/grpc", "Te": "trailers", "Grpc-Timeout": grpcTimeout(r.Deadline)} {
		req.Header.Set(k, v)
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	told := resp.Trailer
	if told.Get("Grpc-Status") == "" {
		told = resp.Header // an answer that is nothing but an error
	}
	var lines strings.Builder
	for _, name := range []string{"grpc-status", "grpc-message", "grpc-status-details-bin"} {
		if v := told.Get(name); v != "" {
			fmt.Fprintf(&lines, "%s: %s\r\n", name, v)
		}
	}
	if lines.Len() == 0 {
		refused, err := withoutStatus(resp.StatusCode, body)
		return nil, refused, err
	}
	st, err := trailers([]byte(lines.String()))
	if err != nil || st.Code() != codes.OK {
		return nil, statusAnswer(st), err
	}
	if len(body) < 5 || len(body)-5 != int(binary.BigEndian.Uint32(body[1:])) {
		return nil, nil, errors.New("not one whole message")
	}
	return body[5:], nil, nil
}

// patientPredict is the request over TensorFlow Serving's gRPC.
func (r *Request) patientPredict(ctx context.Context, conn *grpc.ClientConn) (*Answer, error) {
	message, err := r.message()
	if err != nil {
		return nil, err
	}
	got, refused, err := r.patientCall(ctx, conn, r.rpc(), message)
	if err != nil || refused != nil {
		return refused, err
	}
	return r.answer(got)
}

// patientInfer is the request over v2's gRPC.
func (r *Request) patientInfer(ctx context.Context, conn *grpc.ClientConn, raw bool) (*Answer, error) {
	plain := *r
	plain.Deadline = 0 // it is in grpc-timeout; the doors beside this one have the parameter
	message, err := gproto.Marshal(plain.inferProto(raw))
	if err != nil {
		return nil, err
	}
	got, refused, err := r.patientCall(ctx, conn, inferMethod, message)
	if err != nil || refused != nil {
		return refused, err
	}
	m := new(oippb.ModelInferResponse)
	if err := gproto.Unmarshal(got, m); err != nil {
		return nil, err
	}
	return inferAnswer(m)
}
