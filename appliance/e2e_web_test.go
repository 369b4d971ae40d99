// e2e_web_test.go: the HTTP port of a running appliance for those who are no plain HTTP/1 clients: pages, grpc-web, gRPC, HTTP/2 without TLS.
package appliance

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	configpb "github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// dialHTTP is a gRPC client of the HTTP port.
func (s *server) dialHTTP(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(s.http, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestTokensOverGRPCOfTheHTTPPort: what the gRPC port asks of those who come, the HTTP port asks of the same calls.
func TestTokensOverGRPCOfTheHTTPPort(t *testing.T) {
	g := guard(t)
	_ = g.conn.Close()
	g.conn = g.dialHTTP(t)
	g.tokensOverGRPC(t)
}

// page is a request as a browser sends it for a page of that origin.
func (s *server) page(t *testing.T, origin, method, path, kind, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

func framed(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...))
}

const (
	predictCall = "/tensorflow.serving.PredictionService/Predict"
	reloadCall  = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
	webType     = "application/grpc-web+proto"
)

func TestPagesOfOtherOrigins(t *testing.T) {
	const friend, stranger = "https://app.example.org", "https://evil.example.org"
	s := serve(t, func(cfg *config.Config) { cfg.REST.Origins, cfg.Stream.Origins = []string{friend}, []string{stranger} })
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.live("half", 1)
	const predict = "/v1/models/half:predict"
	call := framed(t, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "half"}, Inputs: map[string]*tensorpb.TensorProto{"x": column(1)}})
	reload := framed(t, &pb.ReloadConfigRequest{Config: &configpb.ModelServerConfig{Config: &configpb.ModelServerConfig_ModelConfigList{
		ModelConfigList: &configpb.ModelConfigList{Config: []*configpb.ModelConfig{{Name: "a"}}}}}}) // which lies nowhere
	for _, c := range []struct {
		name, origin, path, kind, body string
		status                         int
		want                           string
	}{
		{"REST, welcome", friend, predict, "application/json", instances, 200, "2.5"},
		{"REST, no page", "", predict, "application/json", instances, 200, "2.5"},
		{"REST, its own page", s.http, predict, "application/json", instances, 200, "2.5"},
		{"REST, another page", stranger, predict, "text/plain", instances, 403, "list it under rest.origins"},
		{"grpc-web, welcome", friend, predictCall, webType, call, 200, "grpc-status: 0\r\n"},
		{"grpc-web, no page", "", predictCall, webType, call, 200, "grpc-status: 0\r\n"},
		{"grpc-web, its own page", s.http, predictCall, webType, call, 200, "grpc-status: 0\r\n"},
		{"grpc-web, another page", stranger, predictCall, webType, call, 403, "list it under rest.origins"},
		{"health, another page", stranger, "/healthz", "text/plain", "", 403, "list it under rest.origins"},
		// A page is not an operator of this machine, wherever it is looked at.
		{"the list of models, a page", friend, reloadCall, webType, reload, 200, "grpc-status: 7\r\n"},
		{"the list of models, no page", "", reloadCall, webType, reload, 200, "grpc-status: 3\r\n"},
	} {
		method := http.MethodPost
		if c.body == "" {
			method = http.MethodGet
		}
		resp, got := s.page(t, c.origin, method, c.path, c.kind, c.body)
		wantAllowed := ""
		if c.origin == friend {
			wantAllowed = friend
		}
		if resp.StatusCode != c.status || !strings.Contains(got, c.want) || resp.Header.Get("Access-Control-Allow-Origin") != wantAllowed {
			t.Errorf("%s: %d %q %v", c.name, resp.StatusCode, got, resp.Header)
		}
	}
	for _, path := range []string{predict, predictCall} {
		resp, _ := s.page(t, friend, http.MethodOptions, path, "", "", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-grpc-web")
		if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Headers") != "x-grpc-web" {
			t.Errorf("%s asked beforehand: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	// Streams have a list of their own.
	for origin, want := range map[string]int{stranger: 101, friend: 403} {
		conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.http, "http")+streamPath, http.Header{"Origin": {origin}})
		if conn != nil {
			_ = conn.Close()
		}
		if resp == nil || resp.StatusCode != want {
			t.Errorf("a stream of %s: %v %v", origin, resp, err)
		}
	}
}

// TestTheirCORS: TensorFlow Serving's flag answers as theirs does under /v1, and lets pages of any origin use the rest.
func TestTheirCORS(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.REST.CORS = true })
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.live("half", 1)
	const anybody = "https://anybody.example.org"
	resp, _ := s.page(t, anybody, http.MethodOptions, "/v1/models/half:predict", "", "", "Access-Control-Request-Method", "POST")
	if h := resp.Header; resp.StatusCode != 200 || h.Get("Access-Control-Allow-Methods") != "POST, GET" || h.Get("Access-Control-Allow-Headers") != "Content-Type" || len(h["Access-Control-Allow-Origin"]) != 1 {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	call := framed(t, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "half"}, Inputs: map[string]*tensorpb.TensorProto{"x": column(1)}})
	resp, got := s.page(t, anybody, http.MethodPost, predictCall, webType, call)
	if resp.StatusCode != 200 || !strings.Contains(got, "grpc-status: 0\r\n") || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d %q %v", resp.StatusCode, got, resp.Header)
	}
}

// TestNoPagesUnlessConfigured: grpc-web is refused to pages of others, and REST is as it was.
func TestNoPagesUnlessConfigured(t *testing.T) {
	s := run(t, testConfig(t, nil))
	resp, got := s.page(t, "https://evil.example.org", http.MethodPost, reloadCall, webType, framed(t, new(pb.ReloadConfigRequest)))
	if resp.StatusCode != 403 || !strings.Contains(got, "rest.origins") {
		t.Errorf("grpc-web: %d %s", resp.StatusCode, got)
	}
	if resp, got = s.page(t, "https://evil.example.org", http.MethodGet, "/v1/models", "", ""); resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("REST: %d %s %v", resp.StatusCode, got, resp.Header)
	}
}

// TestHTTP2WithoutTLS: the HTTP port speaks it to who begins with it: REST, health and gRPC over one connection, within the same limits.
func TestHTTP2WithoutTLS(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.Admission.ClientRate, cfg.Admission.ClientBurst = 1e-3, 3 })
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.live("half", 1)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: p}}
	t.Cleanup(client.CloseIdleConnections)
	ask := func(path, body string) (*http.Response, string) {
		t.Helper()
		method := http.MethodPost
		if body == "" {
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(t.Context(), method, s.http+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(got)
	}
	if resp, got := ask("/healthz", ""); resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("%s %d %s", resp.Proto, resp.StatusCode, got)
	}
	if resp, got := ask("/v1/models/half:predict", instances); resp.ProtoMajor != 2 || resp.StatusCode != 200 || !strings.Contains(got, "2.5") {
		t.Errorf("%s %d %s", resp.Proto, resp.StatusCode, got)
	}
	if resp, got := ask("/v1/models/half:predict", strings.Repeat(" ", 65<<20)); resp.StatusCode != 413 {
		t.Errorf("too much: %d %s", resp.StatusCode, got)
	}
	// Requests count the same, whichever way they came.
	conn := s.dialHTTP(t)
	req := &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "half"}, Inputs: map[string]*tensorpb.TensorProto{"x": column(1)}}
	var last error
	for range 4 {
		if last = conn.Invoke(t.Context(), predictCall, req, new(pb.PredictResponse)); last != nil {
			break
		}
	}
	if st := status.Convert(last); st.Code() != codes.ResourceExhausted || len(st.Details()) != 2 {
		t.Errorf("a call over its rate: %v %v", last, st.Details())
	}
	if _, got := s.page(t, "", http.MethodPost, predictCall, webType, framed(t, req)); !strings.Contains(got, "grpc-status: 8\r\n") {
		t.Errorf("grpc-web over its rate: %q", got)
	}
	if resp, got := ask("/v1/models/half:predict", instances); resp.StatusCode != 429 {
		t.Errorf("REST over its rate: %d %s", resp.StatusCode, got)
	}
}

// TestWatchesEndWithTheAppliance: streams over the HTTP port do not hold up its end.
func TestWatchesEndWithTheAppliance(t *testing.T) {
	s := run(t, testConfig(t, nil))
	body := framed(t, new(healthpb.HealthCheckRequest))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http+healthpb.Health_Watch_FullMethodName, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", webType)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	watch, err := healthpb.NewHealthClient(s.dialHTTP(t)).Watch(ctx, new(healthpb.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	s.cancel()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(rest, []byte("grpc-status: ")) {
		t.Errorf("grpc-web: %q %v", rest, err)
	}
	for err = error(nil); err == nil; {
		_, err = watch.Recv()
	}
	if status.Code(err) == codes.Unknown || ctx.Err() != nil {
		t.Errorf("gRPC: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}
