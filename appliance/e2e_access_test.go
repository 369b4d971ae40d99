// e2e_access_test.go: tokens at every door of a running appliance, and that none of them is ever told to anybody.
package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api/rpc/jobspb"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	inferd "github.com/inferd/inferd/clients/go"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// guarded is an appliance with the models half and other, whose doors ask for tokens, and the tokens' secrets by name.
type guarded struct {
	*server
	tokens map[string]string
	file   string
}

func guard(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{tokens: map[string]string{}}
	g.server = serve(t, func(cfg *config.Config) {
		dir := filepath.Dir(cfg.StateDir)
		g.file = filepath.Join(dir, "tokens.yaml")
		cfg.Access.TokensFile, cfg.Listen.GRPCSocket = g.file, filepath.Join(dir, "grpc.sock")
		g.make(t, access.Token{Name: "cam", Scopes: access.Predict, Models: []string{"half"}}, access.Token{Name: "robot", Scopes: access.Predict | access.Submit},
			access.Token{Name: "arm", Scopes: access.Submit}, access.Token{Name: "graph", Scopes: access.Metrics}, access.Token{Name: "boss", Scopes: access.Admin})
	})
	g.publish("half", 1, modeltest.HalfPlusTwo())
	g.publish("other", 1, modeltest.HalfPlusTwo())
	g.live("half", 1)
	g.live("other", 1)
	return g
}

func (g *guarded) make(t *testing.T, tokens ...access.Token) {
	t.Helper()
	err := access.Change(g.file, "", func(all []access.Token) ([]access.Token, error) {
		for _, tok := range tokens {
			g.tokens[tok.Name] = access.NewSecret()
			tok.Sum = access.SumOf(g.tokens[tok.Name])
			all = append(all, tok)
		}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (g *guarded) remove(t *testing.T, name string) {
	t.Helper()
	err := access.Change(g.file, "", func(all []access.Token) (left []access.Token, err error) {
		for _, tok := range all {
			if tok.Name != name {
				left = append(left, tok)
			}
		}
		return left, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// as is a request with the token of that name; "" is none.
func (g *guarded) as(t *testing.T, token, method, path, body string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+g.tokens[token])
	}
	resp, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer), resp.Header
}

// with is a context with the token of that name in its metadata.
func (g *guarded) with(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+g.tokens[token])
}

const v2Input = `{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}`

const instances = `{"instances": [1.0]}`

func TestTokensOverREST(t *testing.T) {
	g := guard(t)
	for _, c := range []struct {
		token, method, path, body string
		want                      int
		text, challenge           string
	}{
		{"", "POST", "/v1/models/half:predict", instances, 401, "the request has none", `Bearer realm="inferd"`},
		{"cam", "POST", "/v1/models/half:predict", instances, 200, "2.5", ""},
		{"cam", "POST", "/v1/models/other:predict", instances, 403, "token cam is not for model other", `Bearer realm="inferd", error="insufficient_scope"`},
		{"cam", "POST", "/v1/models/nowhere:predict", instances, 403, "token cam is not for model nowhere", `Bearer realm="inferd", error="insufficient_scope"`},
		{"cam", "POST", "/v1/models/half:submit", instances, 403, "has the scope predict, and this needs submit or admin", `Bearer realm="inferd", error="insufficient_scope"`},
		{"arm", "POST", "/v1/models/half:predict", instances, 403, "needs predict", `Bearer realm="inferd", error="insufficient_scope"`},
		{"arm", "GET", "/v1/models/half/metadata", "", 200, "signature_def", ""},
		{"graph", "GET", "/v1/models/half", "", 403, "needs predict or submit", `Bearer realm="inferd", error="insufficient_scope"`},
		{"graph", "GET", "/metrics", "", 200, "inferd_access_refused_total", ""},
		{"graph", "GET", "/v1/admission", "", 200, "clients", ""},
		{"cam", "GET", "/metrics", "", 403, "needs metrics", `Bearer realm="inferd", error="insufficient_scope"`},
		{"", "GET", "/monitoring/prometheus/metrics", "", 401, "has none", `Bearer realm="inferd"`},
		{"", "GET", "/v1/admission", "", 401, "has none", `Bearer realm="inferd"`},
		{"", "GET", "/V1/Models/half", "", 401, "has none", `Bearer realm="inferd"`},
		{"boss", "POST", "/v1/models/other:predict", instances, 200, "2.5", ""},
		{"boss", "GET", "/metrics", "", 200, "inferd_requests_total", ""},
		{"nobody", "GET", "/v1/models/half", "", 401, "is not one", `Bearer realm="inferd", error="invalid_token"`},
		{"", "GET", "/healthz", "", 200, "live", ""},
		{"", "GET", "/readyz", "", 200, "ready", ""},
		{"", "GET", "/v2/health/ready", "", 200, "ready", ""},
		{"", "GET", "/v2/models/half/ready", "", 200, "true", ""},
		{"", "POST", "/v2/models/half/infer", v2Input, 401, "the request has none", `Bearer realm="inferd"`},
		{"cam", "POST", "/v2/models/half/infer", v2Input, 200, "2.5", ""},
		{"cam", "POST", "/v2/models/other/infer", v2Input, 403, "token cam is not for model other", `Bearer realm="inferd", error="insufficient_scope"`},
		{"arm", "POST", "/v2/models/half/infer", v2Input, 403, "needs predict", `Bearer realm="inferd", error="insufficient_scope"`},
		{"arm", "GET", "/v2/models/half", "", 200, "tensorflow_savedmodel", ""},
		{"", "GET", "/v2", "", 401, "has none", `Bearer realm="inferd"`},
		{"graph", "GET", "/v2/models/stats", "", 200, `"name":"half"`, ""},
		{"graph", "GET", "/v2/models/half", "", 403, "needs predict or submit", `Bearer realm="inferd", error="insufficient_scope"`},
		{"cam", "POST", "/v2/repository/models/half/unload", "", 403, "needs admin", `Bearer realm="inferd", error="insufficient_scope"`},
		{"", "POST", "/v2/repository/models/half/unload", "", 401, "has none", `Bearer realm="inferd"`},
		{"boss", "POST", "/v2/repository/models/half/unload", "", 200, "{}", ""},
		{"", "GET", "/v2/models/half/ready", "", 503, "false", ""},
		{"cam", "POST", "/v2/models/half/infer", v2Input, 404, "model half version 1 is not ready", ""},
		{"boss", "POST", "/v2/repository/models/half/load", "", 200, "{}", ""},
		{"cam", "POST", "/v2/models/half/infer", v2Input, 200, "2.5", ""},
	} {
		code, body, header := g.as(t, c.token, c.method, c.path, c.body)
		if code != c.want || !strings.Contains(body, c.text) || header.Get("WWW-Authenticate") != c.challenge {
			t.Errorf("%s asks %s %s: %d %.300s, challenge %q; want %d %q %q", c.token, c.method, c.path, code, body, header.Get("WWW-Authenticate"), c.want, c.text, c.challenge)
		}
	}
	if _, all, _ := g.as(t, "cam", "GET", "/v1/models", ""); !strings.Contains(all, `"half"`) || strings.Contains(all, `"other"`) {
		t.Errorf("the list of models for cam: %s", all)
	}
	if _, all, _ := g.as(t, "cam", "POST", "/v2/repository/index", ""); !strings.Contains(all, `"half"`) || strings.Contains(all, `"other"`) {
		t.Errorf("the index for cam: %s", all)
	}
	// A large body is refused before it is read, and its sender gets to read why.
	if code, body, _ := g.as(t, "", "POST", "/v1/models/half:predict", strings.Repeat(" ", 8<<20)); code != 401 {
		t.Errorf("a large body: %d %s", code, body)
	}
	g.tokens["wrong"] = access.NewSecret()
	limited := 0
	for range 12 {
		code, _, header := g.as(t, "wrong", "GET", "/v1/models", "")
		if code == http.StatusTooManyRequests {
			limited++
			if after := header.Get("Retry-After"); after == "" || after == "0" {
				t.Errorf("Retry-After %q", after)
			}
		} else if code != 401 {
			t.Errorf("a wrong token: %d", code)
		}
	}
	if limited == 0 {
		t.Error("failed logins have no limit")
	}
	if code, body, _ := g.as(t, "cam", "POST", "/v1/models/half:predict", instances); code != 200 {
		t.Errorf("a good token beside them: %d %s", code, body)
	}
	g.remove(t, "cam")
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		code, body, _ := g.as(t, "cam", "POST", "/v1/models/half:predict", instances)
		if code == 401 || code == 429 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the removed token: %d %s", code, body)
		}
	}
	g.tellsNoToken(t)
}

func TestTokensOverGRPC(t *testing.T) { guard(t).tokensOverGRPC(t) }

func (g *guarded) tokensOverGRPC(t *testing.T) {
	t.Helper()
	request := func(model string) *pb.PredictRequest {
		return &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: model}, Inputs: map[string]*tensorpb.TensorProto{"x": column(1)}}
	}
	const service = "/tensorflow.serving."
	for _, c := range []struct {
		token, method string
		request       proto.Message
		response      proto.Message
		want          codes.Code
		text          string
	}{
		{"", "PredictionService/Predict", request("half"), new(pb.PredictResponse), codes.Unauthenticated, "the request has none"},
		{"cam", "PredictionService/Predict", request("half"), new(pb.PredictResponse), codes.OK, ""},
		{"cam", "PredictionService/Predict", request("other"), new(pb.PredictResponse), codes.PermissionDenied, "token cam is not for model other"},
		{"arm", "PredictionService/Predict", request("half"), new(pb.PredictResponse), codes.PermissionDenied, "needs predict"},
		{"cam", "PredictionService/GetModelMetadata", &pb.GetModelMetadataRequest{ModelSpec: &pb.ModelSpec{Name: "other"}, MetadataField: []string{"signature_def"}}, new(pb.GetModelMetadataResponse), codes.PermissionDenied, "not for model"},
		{"arm", "ModelService/GetModelStatus", &pb.GetModelStatusRequest{ModelSpec: &pb.ModelSpec{Name: "other"}}, new(pb.GetModelStatusResponse), codes.OK, ""},
		{"graph", "ModelService/GetModelStatus", &pb.GetModelStatusRequest{ModelSpec: &pb.ModelSpec{Name: "other"}}, new(pb.GetModelStatusResponse), codes.PermissionDenied, "needs predict or submit"},
		{"robot", "ModelService/HandleReloadConfigRequest", &pb.ReloadConfigRequest{}, new(pb.ReloadConfigResponse), codes.PermissionDenied, "needs admin"},
		{"boss", "ModelService/HandleReloadConfigRequest", &pb.ReloadConfigRequest{}, new(pb.ReloadConfigResponse), codes.InvalidArgument, "ModelConfigList"},
		{"graph", "PredictionService/Classify", &pb.ClassificationRequest{ModelSpec: &pb.ModelSpec{Name: "graph"}}, new(pb.ClassificationResponse), codes.PermissionDenied, "needs predict"},
	} {
		err := g.conn.Invoke(g.with(t.Context(), c.token), service+c.method, c.request, c.response)
		if st := status.Convert(err); st.Code() != c.want || !strings.Contains(st.Message(), c.text) {
			t.Errorf("%s asks %s: %v; want %v %q", c.token, c.method, st, c.want, c.text)
		}
	}
	health := healthpb.NewHealthClient(g.conn)
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("a probe: %v", err)
	}
	if _, err := health.List(t.Context(), &healthpb.HealthListRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the list of models: %v", err)
	}
	if list, err := health.List(g.with(t.Context(), "cam"), &healthpb.HealthListRequest{}); err != nil || list.Statuses["half"] == nil || list.Statuses["other"] != nil {
		t.Errorf("the list of models for cam: %v, %v", list, err)
	}
	// The message is not read: its sender is refused before it could be sent.
	big := request("half")
	big.Inputs["x"] = column(make([]float32, 4<<20)...)
	if err := g.conn.Invoke(t.Context(), service+"PredictionService/Predict", big, new(pb.PredictResponse)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a large message: %v", err)
	}
	g.tokens["wrong"] = access.NewSecret()
	var limited *status.Status
	for range 12 {
		if st := status.Convert(g.conn.Invoke(g.with(t.Context(), "wrong"), service+"PredictionService/Predict", request("half"), new(pb.PredictResponse))); st.Code() == codes.ResourceExhausted {
			limited = st
		}
	}
	hint := false
	for _, d := range limited.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			hint = info.GetRetryDelay().AsDuration() > 0
		}
	}
	if !hint {
		t.Errorf("failed logins: %v %v", limited, limited.Details())
	}
	// The peers of the socket are known by the kernel.
	conn, err := grpc.NewClient("unix:"+g.cfg.Listen.GRPCSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.Invoke(t.Context(), service+"PredictionService/Predict", request("other"), new(pb.PredictResponse)); err != nil {
		t.Errorf("over the socket: %v", err)
	}
	g.tellsNoToken(t)
}

func TestAJobIsItsTokens(t *testing.T) {
	g := guard(t)
	g.make(t, access.Token{Name: "twin", Scopes: access.Submit})
	submit := func(token, key string) (id string, code int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", g.http+"/v1/models/half:submit", strings.NewReader(instances))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+g.tokens[token])
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var job struct{ ID string }
		_ = json.NewDecoder(resp.Body).Decode(&job)
		return job.ID, resp.StatusCode
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // twin is known within a second
		if code, _, _ := g.as(t, "twin", "GET", "/v1/models", ""); code == 200 || time.Now().After(end) {
			break
		}
	}
	mine, code := submit("robot", "")
	if code != http.StatusAccepted {
		t.Fatalf("submit: %d", code)
	}
	named, _ := submit("robot", "k")
	again, code := submit("robot", "k")
	if again != named || code != http.StatusOK {
		t.Errorf("the same key: %s and %s, %d", named, again, code)
	}
	if theirs, code := submit("twin", "k"); theirs == named || code != http.StatusAccepted {
		t.Errorf("the same key of another token: %s, %d", theirs, code)
	}
	for _, id := range []string{mine, named} {
		for token, want := range map[string]int{"robot": 200, "boss": 200, "twin": 404, "arm": 404, "cam": 403, "": 401} {
			if code, body, _ := g.as(t, token, "GET", "/v1/jobs/"+id+"?wait=10", ""); code != want {
				t.Errorf("%s reads: %d %s, want %d", token, code, body, want)
			}
		}
		if code, _, _ := g.as(t, "twin", "GET", "/v1/jobs/"+id+"/result", ""); code != 404 {
			t.Errorf("twin reads the result: %d", code)
		}
		if code, _, _ := g.as(t, "twin", "DELETE", "/v1/jobs/"+id, ""); code != 404 {
			t.Errorf("twin forgets it: %d", code)
		}
		if err := g.conn.Invoke(g.with(t.Context(), "twin"), "/inferd.v1.Jobs/Get", &jobspb.GetRequest{Id: id}, new(jobspb.Job)); status.Code(err) != codes.NotFound {
			t.Errorf("twin over gRPC: %v", err)
		}
		if err := g.conn.Invoke(g.with(t.Context(), "robot"), "/inferd.v1.Jobs/Result", &jobspb.JobRequest{Id: id}, new(jobspb.ResultResponse)); err != nil {
			t.Errorf("robot over gRPC: %v", err)
		}
	}
	if code, body, _ := g.as(t, "robot", "GET", "/v1/jobs/"+mine+"/result", ""); code != 200 || !strings.Contains(body, "2.5") {
		t.Errorf("the result: %d %s", code, body)
	}
	g.tellsNoToken(t)
}

func TestTokensOverWebSocket(t *testing.T) {
	g := guard(t)
	address := "ws" + strings.TrimPrefix(g.http, "http") + streamPath
	dial := func(header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
		d := websocket.Dialer{HandshakeTimeout: patience, Subprotocols: protocols}
		conn, resp, err := d.DialContext(t.Context(), address, header)
		if conn != nil {
			t.Cleanup(func() { _ = conn.Close() })
			_ = conn.SetReadDeadline(time.Now().Add(patience))
		}
		return conn, resp, err
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + g.tokens[token]}} }
	for name, c := range map[string]struct {
		header    http.Header
		protocols []string
		want      int
	}{
		"no token":          {nil, nil, 401},
		"not for this":      {bearer("graph"), nil, 403},
		"header":            {bearer("cam"), nil, 101},
		"subprotocol":       {nil, []string{"inferd.v1.json", "inferd.bearer." + g.tokens["cam"]}, 101},
		"subprotocol alone": {nil, []string{"inferd.bearer." + g.tokens["cam"]}, 101},
		"both":              {bearer("cam"), []string{"inferd.v1.json", "inferd.bearer." + g.tokens["cam"]}, 401},
		"unknown language":  {nil, []string{"soap", "inferd.bearer." + g.tokens["cam"]}, 400},
		"wrong token":       {nil, []string{"inferd.v1.json", "inferd.bearer." + access.NewSecret()}, 401},
	} {
		conn, resp, err := dial(c.header, c.protocols...)
		if resp == nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.want || bytes.Contains(body, []byte(g.tokens["cam"])) || resp.StatusCode == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s %v, want %d", name, resp.StatusCode, body, resp.Header, c.want)
		}
		if p := resp.Header.Get("Sec-WebSocket-Protocol"); strings.Contains(p, g.tokens["cam"]) {
			t.Errorf("%s: the token comes back as subprotocol %q", name, p)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}

	type frame struct {
		Hello       struct{ Session string }
		ID, Code    string
		Error       string
		Accepted    *string
		Predictions []any
	}
	next := func(conn *websocket.Conn) (f frame) {
		t.Helper()
		for {
			f = frame{}
			if err := conn.ReadJSON(&f); err != nil {
				t.Fatal(err)
			}
			if f.ID != "" || f.Hello.Session != "" || f.Error != "" {
				return f
			}
		}
	}
	say := func(conn *websocket.Conn, text string) {
		t.Helper()
		if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	cam, _, err := dial(bearer("cam"))
	if err != nil {
		t.Fatal(err)
	}
	if s := next(cam).Hello.Session; !strings.HasPrefix(s, "cam:") {
		t.Errorf("the session %q is nobody's", s)
	}
	for request, want := range map[string]string{
		`{"id":"a","model":"half","instances":[1]}`:                "",
		`{"id":"b","model":"other","instances":[1]}`:               "PERMISSION_DENIED",
		`{"id":"c","model":"half","instances":[1],"durable":true}`: "PERMISSION_DENIED",
	} {
		say(cam, request)
		if f := next(cam); f.Code != want {
			t.Errorf("%s: %+v, want %q", request, f, want)
		}
	}

	robot, _, err := dial(bearer("robot"))
	if err != nil {
		t.Fatal(err)
	}
	session := next(robot).Hello.Session
	say(robot, `{"id":"1","model":"half","instances":[1],"durable":true}`)
	if f := next(robot); f.Error != "" {
		t.Fatalf("durable: %+v", f)
	}
	_ = robot.Close()
	for token, want := range map[string]int{"arm": 4002, "robot": 0} {
		conn, _, err := dial(bearer(token))
		if err != nil {
			t.Fatal(err)
		}
		next(conn)
		say(conn, `{"resume":{"session":"`+session+`","after":0}}`)
		_, text, err := conn.ReadMessage()
		if websocket.IsCloseError(err, 4002) != (want == 4002) {
			t.Errorf("%s resumes: %s, %v", token, text, err)
		}
	}

	g.remove(t, "cam")
	for {
		if _, _, err := cam.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, 4005) {
				t.Errorf("after the token was removed: %v", err)
			}
			break
		}
	}
	g.tellsNoToken(t)
}

// The clients show their token with everything; without one they are told, and do not try again.
func TestClientsWithATokenInGo(t *testing.T) {
	g := guard(t)
	none, err := inferd.New(g.http, inferd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer none.CloseIdle()
	var refused *inferd.Error
	if _, err := none.Submit(t.Context(), inferd.Submission{Model: "half", Body: []byte(instances)}); !errors.As(err, &refused) || refused.Status != 401 || refused.Temporary() {
		t.Errorf("without: %v", err)
	}
	s := none.Stream(inferd.StreamOptions{})
	if _, err := s.Recv(t.Context()); !errors.As(err, &refused) || refused.Status != 401 {
		t.Errorf("a stream without: %v", err)
	}
	_ = s.Close()
	c, err := inferd.New(g.http, inferd.Options{Token: g.tokens["robot"]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	job, err := c.Submit(t.Context(), inferd.Submission{Model: "half", Body: []byte(instances)})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := c.Result(t.Context(), job.ID); err != nil || !strings.Contains(string(a), "2.5") {
		t.Errorf("%s, %v", a, err)
	}
	s = c.Stream(inferd.StreamOptions{})
	defer func() { _ = s.Close() }()
	if err := s.Send(t.Context(), inferd.Request{Model: "half", Instances: []float32{1}, Durable: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(t.Context()); err != nil || r.Err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	g.tellsNoToken(t)
}

func TestTokensAndTheControlSocket(t *testing.T) {
	g := guard(t)
	c := control.Dial(g.cfg.Listen.Control)
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil || strings.Join(st.Asks, " ") != "tokens" {
		t.Errorf("%+v, %v", st, err)
	}
	if code, answer, err := c.Do(t.Context(), "POST", "/v1/models/other:predict", []byte(instances)); err != nil || code != 200 {
		t.Errorf("%d %s, %v", code, answer, err)
	}
	if err := c.Rescan(t.Context()); err != nil { // this test's user is inferd's own
		t.Error(err)
	}
	if err := access.Change(g.file, "", func([]access.Token) ([]access.Token, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	g.until("no token lets in", func(*control.Status) bool {
		code, _, _ := g.as(t, "boss", "GET", "/v1/models", "")
		return code != 200
	})
}

// tellsNoToken looks for the tokens, and their sums, wherever inferd tells something.
func (g *guarded) tellsNoToken(t *testing.T) {
	t.Helper()
	st, err := json.Marshal(g.Status())
	if err != nil {
		t.Fatal(err)
	}
	var metrics bytes.Buffer
	families, err := g.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		metrics.WriteString(f.String())
	}
	logs := g.logs.tail(1 << 20)
	if len(logs) == 0 || metrics.Len() == 0 {
		t.Fatal("there is nothing to look at")
	}
	for name, secret := range g.tokens {
		for what, text := range map[string]string{"log": logs, "status": string(st), "metrics": metrics.String()} {
			if strings.Contains(text, secret) || strings.Contains(text, secret[len("inferd_"):]) {
				t.Errorf("the %s has the token of %s", what, name)
			}
		}
	}
}

// An address that is open to other machines is refused where nobody would be asked; it is found by whoever opens it, too.
func TestOpenDoorIsRefused(t *testing.T) {
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Listen.HTTP = ":0" })
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "listen.insecure: true") {
		t.Errorf("%v", err)
	}
	cfg.Listen.Insecure = true
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	s := run(t, cfg)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.http, "http://"))
	if err != nil || !strings.Contains(s.logs.tail(1000), "without authentication") {
		t.Errorf("%s, %v", port, err)
	}
}
