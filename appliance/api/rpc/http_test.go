// http_test.go: calls over HTTP, as grpc-web and as they are, hold to what the gRPC port holds to: answers, errors, tokens, limits.
package rpc

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

const predictPath = "/" + predictionService + "/Predict"

// webRig is a rig whose catalog is answered from over HTTP/1 and HTTP/2 too.
type webRig struct {
	*rig
	url    string
	client [3]*http.Client // by HTTP version
}

func startWeb(t testing.TB, opts Options) *webRig {
	t.Helper()
	r := &webRig{rig: start(t, opts)}
	h := NewHTTP(api.New(r.catalog, api.Options{}), opts)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnContext = access.ConnContext
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	r.url = s.URL
	for version := 1; version <= 2; version++ {
		p := new(http.Protocols)
		p.SetHTTP1(version == 1)
		p.SetUnencryptedHTTP2(version == 2)
		r.client[version] = &http.Client{Transport: &http.Transport{Protocols: p, DisableCompression: true}}
	}
	t.Cleanup(func() {
		for _, c := range r.client[1:] {
			c.CloseIdleConnections()
		}
		s.Close()
		h.Stop()
	})
	return r
}

// dial is a real gRPC client of the HTTP port.
func (r *webRig) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(r.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// webAnswer is what came of a call.
type webAnswer struct {
	http     int
	header   http.Header
	messages [][]byte
	trailers map[string]string
}

func (a *webAnswer) status() (codes.Code, string) {
	n, err := strconv.Atoi(a.trailers["grpc-status"])
	if err != nil {
		return codes.Unknown, fmt.Sprintf("no status: HTTP %d, %v", a.http, a.trailers)
	}
	text, _ := url.PathUnescape(a.trailers["grpc-message"])
	return codes.Code(n), text
}

func frame(flags byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// parseWeb reads the whole body of a grpc-web answer: data frames, and one of trailers at the end.
func parseWeb(body []byte) (messages [][]byte, trailers map[string]string, err error) {
	for len(body) > 0 {
		if trailers != nil {
			return nil, nil, errors.New("something follows the trailers")
		}
		if len(body) < frameHead || uint64(len(body)-frameHead) < uint64(binary.BigEndian.Uint32(body[1:])) {
			return nil, nil, errors.New("a frame is cut short")
		}
		end := frameHead + int(binary.BigEndian.Uint32(body[1:]))
		switch flags, payload := body[0], body[frameHead:end]; flags {
		case 0, 1:
			messages = append(messages, payload)
		case trailerFlag:
			trailers = map[string]string{}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(payload), "\r\n"), "\r\n") {
				name, value, ok := strings.Cut(line, ": ")
				if !ok || name != strings.ToLower(name) {
					return nil, nil, fmt.Errorf("trailer %q", line)
				}
				trailers[name] = value
			}
		default:
			return nil, nil, fmt.Errorf("flags %#x", flags)
		}
		body = body[end:]
	}
	if trailers == nil {
		err = errors.New("no trailers")
	}
	return messages, trailers, err
}

// decodeText reads base64 whose parts are padded each for itself, a group at a time.
func decodeText(text []byte) (out []byte, err error) {
	for len(text) > 0 {
		if len(text) < 4 {
			return nil, errors.New("not whole groups")
		}
		part, err := base64.StdEncoding.Strict().DecodeString(string(text[:4]))
		if err != nil {
			return nil, err
		}
		out, text = append(out, part...), text[4:]
	}
	return out, nil
}

// web sends a call with this body, which is not yet base64, and reads the whole answer.
func (r *webRig) web(t testing.TB, version int, path, kind string, body []byte, headers ...string) *webAnswer {
	t.Helper()
	text := strings.HasPrefix(kind, "application/grpc-web-text")
	if text {
		body = []byte(base64.StdEncoding.EncodeToString(body))
	}
	return r.raw(t, version, path, kind, bytes.NewReader(body), headers...)
}

func (r *webRig) raw(t testing.TB, version int, path, kind string, body io.Reader, headers ...string) *webAnswer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.client[version].Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := &webAnswer{http: resp.StatusCode, header: resp.Header}
	if resp.StatusCode != http.StatusOK {
		a.trailers = map[string]string{"body": string(got)}
		return a
	}
	if want := strings.Split(kind, ";")[0]; !strings.HasPrefix(resp.Header.Get("Content-Type"), want) {
		t.Errorf("Content-Type %q of an answer to %q", resp.Header.Get("Content-Type"), kind)
	}
	if strings.HasPrefix(kind, "application/grpc-web-text") {
		if got, err = decodeText(got); err != nil {
			t.Fatal(err)
		}
	}
	if a.messages, a.trailers, err = parseWeb(got); err != nil {
		t.Fatal(err)
	}
	return a
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var webKinds = []string{"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web-text+proto", "Application/gRPC-Web-Text; charset=utf-8"}

// everyWay is each way in which a grpc-web call may come.
func everyWay(t *testing.T, try func(t *testing.T, version int, kind string)) {
	for version := 1; version <= 2; version++ {
		for _, kind := range webKinds {
			t.Run(fmt.Sprintf("HTTP%d %s", version, kind), func(t *testing.T) { try(t, version, strings.ToLower(kind)) })
		}
	}
}

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
		if addr, is := From(ctx); is != page || addr.String() != "127.0.0.1:7" || !clientOf(ctx).IsLoopback() {
			t.Errorf("%v %v %v", addr, is, clientOf(ctx))
		}
	}
	if addr, page := From(context.Background()); addr != nil || page {
		t.Errorf("%v %v", addr, page)
	}
}

// FuzzWeb: whatever comes as a grpc-web body is answered with a whole grpc-web answer.
func FuzzWeb(f *testing.F) {
	r := startWeb(f, Options{MaxRequestBytes: 1 << 16})
	r.publishHalf(f, 1)
	good := frame(0, marshal(f, ask(modelSpec("half_plus_two"), "", x(floats([]int64{1, 1}, 1)))))
	f.Add(good, "application/grpc-web", "")
	f.Add([]byte(base64.StdEncoding.EncodeToString(good)), "application/grpc-web-text", "")
	f.Add([]byte(base64.StdEncoding.EncodeToString(good[:1])+base64.StdEncoding.EncodeToString(good[1:])), "application/grpc-web-text", "")
	f.Add(frame(1, coding.Compress(coding.Zstd, good[frameHead:])), "application/grpc-web+proto", "zstd")
	f.Add(frame(1, coding.Compress(coding.Gzip, make([]byte, 1<<20))), "application/grpc-web", "gzip")
	f.Add(frame(trailerFlag, nil), "application/grpc-web", "")
	h := NewHTTP(api.New(r.catalog, api.Options{}), Options{MaxRequestBytes: 1 << 16})
	f.Cleanup(h.Stop)
	f.Fuzz(func(t *testing.T, body []byte, kind, how string) {
		if kind != "application/grpc-web" && kind != "application/grpc-web-text" {
			kind = "application/grpc-web+proto"
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://box"+predictPath, bytes.NewReader(body))
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Grpc-Encoding", how)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		got := w.Body.Bytes()
		if w.Code != http.StatusOK {
			return // grpc says so of metadata that is none
		}
		if kind == "application/grpc-web-text" {
			var err error
			if got, err = decodeText(got); err != nil {
				t.Fatalf("%v: %q", err, w.Body)
			}
		}
		if messages, trailers, err := parseWeb(got); err != nil || (trailers["grpc-status"] == "0") != (len(messages) == 1) {
			t.Errorf("%d messages, %v, %v", len(messages), trailers, err)
		}
	})
}

// FuzzText: the reader of text gives what decoding group after group gives, however it is read.
func FuzzText(f *testing.F) {
	f.Add([]byte("AAAA"), uint8(1))
	f.Add([]byte("AA==AAA=AAAA"), uint8(2))
	f.Add([]byte("AA\n=="), uint8(7))
	f.Add([]byte(strings.Repeat("QUJD", 3000)+"QQ=="+strings.Repeat("QUJD", 9)), uint8(200))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		want, fails := decodeText(text)
		if bytes.ContainsAny(text, "\r\n") { // which encoding/base64 passes over
			fails = errText
		}
		var got []byte
		r, b := newTextReader(&chunks{text, int(size%11) + 1}), make([]byte, int(size)+1)
		for {
			n, err := r.Read(b)
			got = append(got, b[:n]...)
			if err == nil {
				continue
			}
			if errors.Is(err, io.EOF) != (fails == nil) || fails != nil && !errors.Is(err, errText) {
				t.Fatalf("%v, want %v", err, fails)
			}
			break
		}
		if fails == nil && !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
	})
}

// chunks is a reader that gives a few bytes at a time.
type chunks struct {
	left []byte
	most int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.most)], c.left)
	c.left = c.left[n:]
	return n, nil
}
