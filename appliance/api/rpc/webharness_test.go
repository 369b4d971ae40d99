// webharness_test.go: the rig's door for calls over HTTP, and a client of grpc-web.
package rpc

import (
	"bytes"
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
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
