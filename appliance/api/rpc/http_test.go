// http_test.go: calls over HTTP, as grpc-web and as they are, hold to what the gRPC port holds to: answers, errors, tokens, limits.
package rpc

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestWebAnswersAsThePortDoes(t *testing.T) {
	r := startWeb(t, Options{})
	r.publishHalf(t, 3)
	native := r.dial(t)
	for name, req := range map[string]*pb.PredictRequest{
		"an answer":    ask(modelSpec("half_plus_two"), "", x(floats([]int64{2, 1}, 1, 5))),
		"no model":     ask(modelSpec("nobody"), "", x(floats([]int64{1, 1}, 1))),
		"no signature": ask(modelSpec("half_plus_two"), "nöne\n100%", x(floats([]int64{1, 1}, 1))),
		"wrong type":   ask(modelSpec("half_plus_two"), "", x(&tensorpb.TensorProto{Dtype: typespb.DataType_DT_INT32, TensorShape: shapeOf(1, 1), IntVal: []int32{1}})),
		"nothing":      {},
	} {
		t.Run(name, func(t *testing.T) {
			want, fails := r.predict(t.Context(), req)
			same := func(t *testing.T, got *pb.PredictResponse, code codes.Code, text string) {
				t.Helper()
				if code != status.Code(fails) || text != status.Convert(fails).Message() || fails == nil && !proto.Equal(got, want) {
					t.Errorf("%v %q %v\nthe port has %v %v", code, text, got, fails, want)
				}
			}
			everyWay(t, func(t *testing.T, version int, kind string) {
				a := r.web(t, version, predictPath, kind, frame(0, marshal(t, req)))
				got := new(pb.PredictResponse)
				if len(a.messages) == 1 {
					if err := proto.Unmarshal(a.messages[0], got); err != nil {
						t.Fatal(err)
					}
				} else if fails == nil || len(a.messages) > 0 {
					t.Fatalf("%d messages", len(a.messages))
				}
				code, text := a.status()
				same(t, got, code, text)
			})
			got := new(pb.PredictResponse)
			err := native.Invoke(t.Context(), predictPath, req, got)
			same(t, got, status.Code(err), status.Convert(err).Message())
		})
	}
}

func TestWebErrorHasDetails(t *testing.T) {
	r := startWeb(t, Options{})
	r.publish(t, half(), func(context.Context, *inference.Request) ([]*tensor.Tensor, error) {
		return nil, &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonQueueFull, Msg: "full", RetryAfter: 1}
	})
	req := ask(modelSpec("half"), "", x(floats([]int64{1, 1}, 1)))
	_, want := r.predict(t.Context(), req)
	everyWay(t, func(t *testing.T, version int, kind string) {
		a := r.web(t, version, predictPath, kind, frame(0, marshal(t, req)))
		b, err := base64.RawStdEncoding.DecodeString(a.trailers["grpc-status-details-bin"])
		if err != nil {
			t.Fatal(err)
		}
		if wanted := marshal(t, status.Convert(want).Proto()); len(status.Convert(want).Details()) != 2 || !bytes.Equal(b, wanted) {
			t.Errorf("details %x, want %x", b, wanted)
		}
	})
}

func half() *inference.Version {
	return &inference.Version{Model: "half", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{info("x", tensor.Float, -1, 1)}, []inference.TensorInfo{info("y", tensor.Float, -1, 1)})}}
}

// TestWebStream: a stream of the server's, whose messages can be read when they come.
func TestWebStream(t *testing.T) {
	draining := make(chan struct{})
	r := startWeb(t, Options{Draining: draining, Changed: func() <-chan struct{} { return nil }})
	r.publishHalf(t, 1)
	for version := 1; version <= 2; version++ {
		for _, kind := range webKinds[1:3] {
			body := frame(0, marshal(t, &healthpb.HealthCheckRequest{Service: "half_plus_two"}))
			if kind == webKinds[2] {
				body = []byte(base64.StdEncoding.EncodeToString(body))
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+healthpb.Health_Watch_FullMethodName, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", kind)
			resp, err := r.client[version].Do(req)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			want := string(frame(0, marshal(t, &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})))
			if kind == webKinds[2] {
				want = base64.StdEncoding.EncodeToString([]byte(want))
			}
			first := make([]byte, len(want))
			if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != want {
				t.Fatalf("HTTP/%d %s: %q %v", version, kind, first, err)
			}
			defer func() {
				rest, err := io.ReadAll(resp.Body)
				if err == nil && kind == webKinds[2] {
					rest, err = decodeText(rest)
				}
				if err != nil {
					t.Fatal(err)
				}
				messages, trailers, err := parseWeb(rest)
				if err != nil || len(messages) != 1 || trailers["grpc-status"] == "" {
					t.Errorf("HTTP/%d %s: the end is %q %v, %v", version, kind, messages, trailers, err)
				}
			}()
		}
	}
	close(draining)
}

// TestNativeStream: a stream both ways over the HTTP port goes on past what one message may have.
func TestNativeStream(t *testing.T) {
	r := startWeb(t, Options{MaxRequestBytes: 1000})
	stream, err := reflectionpb.NewServerReflectionClient(r.dial(t)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		name := fmt.Sprintf("%d.%s", i, strings.Repeat("x", 100))
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}}); err != nil {
			t.Fatal(err)
		}
		if got, err := stream.Recv(); err != nil || !strings.Contains(got.GetOriginalRequest().String(), name) {
			t.Fatalf("%d: %v %v", i, got, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestIntakeIsBounded: what nobody takes is not read.
func TestIntakeIsBounded(t *testing.T) {
	in := newIntake(strings.NewReader(strings.Repeat("x", 1<<20)), 1000, false)
	got, b := 0, make([]byte, 300)
	for got < frameHead+1000 {
		n, err := in.Read(b)
		if got += n; err != nil {
			t.Fatal(err)
		}
	}
	if got != frameHead+1000 {
		t.Errorf("%d bytes were read", got)
	}
	next := make(chan int)
	go func() {
		defer close(next)
		for {
			n, err := in.Read(b)
			if err != nil {
				if !errors.Is(err, errClosed) {
					t.Error(err)
				}
				return
			}
			next <- n
		}
	}()
	in.taken(7)
	if n := <-next; n != 7 {
		t.Errorf("%d bytes for room of 7", n)
	}
	in.Close()
	if n, more := <-next; more {
		t.Errorf("%d bytes after the end", n)
	}
}

func TestWebAsksForTokens(t *testing.T) {
	guard := access.New(access.Options{Path: t.TempDir() + "/none"})
	r := startWeb(t, Options{Access: guard, MaxRequestBytes: 32 << 20})
	r.publish(t, half(), func(context.Context, *inference.Request) ([]*tensor.Tensor, error) {
		t.Error("a request was let in")
		return nil, errors.New("never")
	})
	req := ask(modelSpec("half"), "", x(floats([]int64{1, 1}, 1)))
	_, want := r.predict(t.Context(), req)
	if status.Code(want) != codes.Unauthenticated {
		t.Fatal(want)
	}
	check := func(t *testing.T, code codes.Code, text string) {
		t.Helper()
		if code != codes.Unauthenticated || text != status.Convert(want).Message() {
			t.Errorf("%v %q", code, text)
		}
	}
	everyWay(t, func(t *testing.T, version int, kind string) {
		code, text := r.web(t, version, predictPath, kind, frame(0, marshal(t, req))).status()
		check(t, code, text)
		code, _ = r.web(t, version, predictPath, kind, frame(0, marshal(t, req)), "Authorization", "Bearer wrong").status()
		if code != codes.Unauthenticated && code != codes.ResourceExhausted { // by and by there were too many of them
			t.Error(code)
		}
		if version == 1 { // a long message is refused too, with an answer that can be read
			code, text = r.web(t, version, predictPath, kind, frame(0, make([]byte, 8<<20))).status()
			check(t, code, text)
		}
		code, text = r.web(t, version, healthpb.Health_Check_FullMethodName, kind, frame(0, marshal(t, &healthpb.HealthCheckRequest{Service: "half"}))).status()
		if code != codes.OK {
			t.Errorf("a probe: %v %s", code, text)
		}
	})
	err := r.dial(t).Invoke(t.Context(), predictPath, req, new(pb.PredictResponse))
	check(t, status.Code(err), status.Convert(err).Message())
}

func TestWebLimits(t *testing.T) {
	const limit = 4 << 20
	r := startWeb(t, Options{MaxRequestBytes: limit})
	r.publishHalf(t, 1)
	large := marshal(t, ask(modelSpec("half_plus_two"), "", x(content(typespb.DataType_DT_FLOAT, []int64{limit / 4, 1}, make([]byte, limit)))))
	everyWay(t, func(t *testing.T, version int, kind string) {
		for what, c := range map[string]struct {
			body []byte
			how  string
			text string
		}{
			"too long":         {frame(0, large), "", "received message larger than max"},
			"said to be so":    {frame(0, large)[:2000], "", "received message larger than max"},
			"too long as gzip": {frame(1, coding.Compress(coding.Gzip, large)), "gzip", "larger than max"},
			"too long as zstd": {frame(1, coding.Compress(coding.Zstd, large)), "zstd", "larger than max"},
			"a bomb, gzip":     {frame(1, coding.Compress(coding.Gzip, make([]byte, 64<<20))), "gzip", "larger than max"},
			"a bomb, zstd":     {frame(1, coding.Compress(coding.Zstd, make([]byte, 64<<20))), "zstd", "larger than max"},
		} {
			var headers []string
			if c.how != "" {
				headers = []string{"Grpc-Encoding", c.how}
			}
			code, text := r.web(t, version, predictPath, kind, c.body, headers...).status()
			if code != codes.ResourceExhausted || !strings.Contains(text, c.text) {
				t.Errorf("%s: %v %s", what, code, text)
			}
		}
	})
}

func TestWebCompressed(t *testing.T) {
	r := startWeb(t, Options{})
	r.publishHalf(t, 1)
	body := marshal(t, ask(modelSpec("half_plus_two"), "", x(floats([]int64{1, 1}, 1))))
	everyWay(t, func(t *testing.T, version int, kind string) {
		for _, how := range []string{coding.Gzip, coding.Zstd} {
			a := r.web(t, version, predictPath, kind, frame(1, coding.Compress(how, body)), "Grpc-Encoding", how, "Grpc-Accept-Encoding", how)
			if code, text := a.status(); code != codes.OK || len(a.messages) != 1 || a.header.Get("Grpc-Encoding") != how {
				t.Fatalf("%s: %v %s %v", how, code, text, a.header)
			}
			z := coding.NewReader(how, bytes.NewReader(a.messages[0]))
			plain, err := io.ReadAll(z)
			z.Close()
			got := new(pb.PredictResponse)
			if err != nil || proto.Unmarshal(plain, got) != nil || got.Outputs["y"].GetFloatVal()[0] != 2.5 {
				t.Errorf("%s: %v %v", how, got, err)
			}
		}
	})
}

// TestCompressedOverTheWire: real clients that compress, at the port and over HTTP.
func TestCompressedOverTheWire(t *testing.T) {
	const limit = 1 << 20
	r := startWeb(t, Options{MaxRequestBytes: limit})
	r.publishHalf(t, 1)
	for name, conn := range map[string]*grpc.ClientConn{"port": r.conn, "HTTP": r.dial(t)} {
		for _, how := range []string{coding.Gzip, coding.Zstd} {
			got := new(pb.PredictResponse)
			err := conn.Invoke(t.Context(), predictPath, ask(modelSpec("half_plus_two"), "", x(floats([]int64{2, 1}, 1, 3))), got, grpc.UseCompressor(how))
			if err != nil || len(got.Outputs["y"].GetFloatVal()) != 2 || got.Outputs["y"].FloatVal[1] != 3.5 {
				t.Errorf("%s %s: %v %v", name, how, got, err)
			}
			bomb := ask(modelSpec("half_plus_two"), "", x(content(typespb.DataType_DT_FLOAT, []int64{16 * limit / 4, 1}, make([]byte, 16*limit))))
			if err := conn.Invoke(t.Context(), predictPath, bomb, got, grpc.UseCompressor(how)); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s %s: a bomb: %v", name, how, err)
			}
		}
	}
}

func TestWebBadInput(t *testing.T) {
	r := startWeb(t, Options{})
	r.publishHalf(t, 1)
	good := frame(0, marshal(t, ask(modelSpec("half_plus_two"), "", x(floats([]int64{1, 1}, 1)))))
	text := base64.StdEncoding.EncodeToString(good)
	parts := base64.StdEncoding.EncodeToString(good[:1]) + base64.StdEncoding.EncodeToString(good[1:frameHead]) + base64.StdEncoding.EncodeToString(good[frameHead:])
	for name, c := range map[string]struct {
		kind, body string
		code       codes.Code
		text       string
		headers    []string
	}{
		"whole text":           {"application/grpc-web-text", text, codes.OK, "", nil},
		"parts of text":        {"application/grpc-web-text", parts, codes.OK, "", nil},
		"no base64":            {"application/grpc-web-text", "{}!" + text, codes.InvalidArgument, "the body is not base64", nil},
		"base64 with new line": {"application/grpc-web-text", text[:8] + "\n" + text[8:], codes.InvalidArgument, "the body is not base64", nil},
		"text cut short":       {"application/grpc-web-text", text[:len(text)-2], codes.InvalidArgument, "ends within a group of four", nil},
		"bytes for text":       {"application/grpc-web-text", string(good), codes.InvalidArgument, "the body is not base64", nil},
		"text for bytes":       {"application/grpc-web", text, codes.ResourceExhausted, "larger than max", nil},
		"no frame":             {"application/grpc-web", "", codes.Internal, "", nil},
		"half a head":          {"application/grpc-web", "\x00\x00", codes.Internal, "unexpected EOF", nil},
		"half a message":       {"application/grpc-web", string(good[:len(good)-1]), codes.Internal, "unexpected EOF", nil},
		"trailers":             {"application/grpc-web", string(frame(trailerFlag, []byte("a: b\r\n"))), codes.Internal, "unexpected payload format", nil},
		"no message":           {"application/grpc-web", string(frame(0, []byte{0xff})), codes.Internal, "", nil},
		"unknown encoding":     {"application/grpc-web", string(frame(1, good)), codes.Unimplemented, "br", []string{"Grpc-Encoding", "br"}},
		"no zstd":              {"application/grpc-web", string(frame(1, good)), codes.Internal, "not a whole stream", []string{"Grpc-Encoding", "zstd"}},
		"an HTTP encoding":     {"application/grpc-web", string(good), codes.InvalidArgument, "grpc-encoding", []string{"Content-Encoding", "gzip"}},
		"no time":              {"application/grpc-web", string(good), codes.DeadlineExceeded, "", []string{"Grpc-Timeout", "1n"}},
	} {
		for version := 1; version <= 2; version++ {
			a := r.raw(t, version, predictPath, c.kind, strings.NewReader(c.body), c.headers...)
			if code, text := a.status(); code != c.code || !strings.Contains(text, c.text) {
				t.Errorf("%s over HTTP/%d: %v %q, want %v %q", name, version, code, text, c.code, c.text)
			}
		}
	}
	for name, c := range map[string]struct {
		path, kind string
		status     int
		code       codes.Code
		headers    []string
	}{
		"no such method":      {"/" + predictionService + "/Nothing", "application/grpc-web", 200, codes.Unimplemented, nil},
		"no such service":     {"/nobody.Service/Predict", "application/grpc-web", 200, codes.Unimplemented, nil},
		"native over HTTP/1":  {predictPath, "application/grpc", 505, 0, nil},
		"a time of no number": {predictPath, "application/grpc-web", 400, 0, []string{"Grpc-Timeout", "soon"}},
	} {
		a := r.raw(t, 1, c.path, c.kind, bytes.NewReader(good), c.headers...)
		if code, text := a.status(); a.http != c.status || c.status == 200 && code != c.code {
			t.Errorf("%s: %d %v %q", name, a.http, code, text)
		}
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://box"+predictPath, nil)
	if Takes(req) {
		t.Error("a GET without a content type is a call")
	}
	for kind, want := range map[string]bool{"application/grpc": true, "application/grpc+proto": true, "application/grpc-web": true, "application/grpc-webby": false, "application/json": false, "": false, "APPLICATION/GRPC-WEB-TEXT; x": true} {
		req.Header.Set("Content-Type", kind)
		if Takes(req) != want {
			t.Errorf("%q: %v", kind, !want)
		}
	}
}

func TestFromKnowsPages(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://box/", nil)
	r.RemoteAddr = "127.0.0.1:7"
	for _, page := range []bool{false, true} {
		if page {
			r.Header.Set("Origin", "http://box")
		}
		ctx, err := Options{}.tapHTTP(r)
		if err != nil {
			t.Fatal(err)
		}
		if addr, is := from(ctx); is != page || addr.String() != "127.0.0.1:7" || !clientOf(ctx).IsLoopback() {
			t.Errorf("%v %v %v", addr, is, clientOf(ctx))
		}
	}
	if addr, page := from(context.Background()); addr != nil || page {
		t.Errorf("%v %v", addr, page)
	}
}
