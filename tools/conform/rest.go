// rest.go: TensorFlow Serving's REST, jobs over REST, and what all HTTP has in common.
package conform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
)

func (s *Server) restDoors() []Door {
	door := func(name string, c *http.Client, packed string) Door {
		return Door{Name: name, Kind: REST, Ask: func(ctx context.Context, r *Request) (*Answer, error) {
			return s.rest(ctx, c, packed, r)
		}}
	}
	return []Door{door("REST", s.Client, ""), door("REST, gzip", s.Client, coding.Gzip), door("REST over HTTP/2, zstd", s.HTTP2, coding.Zstd)}
}

// path is what REST says of the model.
func (r *Request) path(act string) string {
	p := "/v1/models/" + r.Model
	switch {
	case r.Version != 0:
		p += "/versions/" + strconv.FormatInt(r.Version, 10)
	case r.Label != "":
		p += "/labels/" + r.Label
	}
	return p + ":" + act
}

// columns is the body in the column form, whose shapes are exact.
func (r *Request) columns() []byte {
	var b strings.Builder
	b.WriteString("{")
	if r.Signature != "" {
		fmt.Fprintf(&b, "\"signature_name\":%q,", r.Signature)
	}
	b.WriteString(`"inputs":{`)
	for i, in := range r.Inputs {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "%q:%s", in.Name, nested(in.Tensor))
	}
	b.WriteString("}}")
	return r.spoil([]byte(b.String()), ' ')
}

// spoil makes a body of JSON as long, and as bad, as the request wants it.
func (r *Request) spoil(body []byte, with byte) []byte {
	if r.Garbage {
		return body[:len(body)/2]
	}
	for len(body) < r.Large {
		body = append(body, with)
	}
	return body
}

func (r *Request) headers() map[string]string {
	h := map[string]string{}
	if r.Token != "" {
		h["Authorization"] = "Bearer " + r.Token
	}
	if r.Priority != "" {
		h["X-Inferd-Priority"] = r.Priority
	}
	if r.Deadline != 0 {
		h["Request-Timeout"] = seconds(r.Deadline)
	}
	return h
}

// reply is an answer of HTTP, whose body has been read.
type reply struct {
	status int
	header http.Header
}

// do sends a body and reads the answer, both packed as told.
func (s *Server) do(ctx context.Context, c *http.Client, packed, method, path string, body []byte, headers map[string]string) (reply, []byte, error) {
	var from io.Reader
	if packed != "" {
		body = coding.Compress(packed, body)
	}
	if body != nil {
		from = strings.NewReader(string(body))
	}
	req, err := http.NewRequestWithContext(ctx, method, s.HTTP+path, from)
	if err != nil {
		return reply{}, nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	if packed != "" {
		req.Header.Set("Content-Encoding", packed)
		req.Header.Set("Accept-Encoding", packed)
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return reply{}, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got := io.Reader(resp.Body)
	if how := resp.Header.Get("Content-Encoding"); how != "" {
		z := coding.NewReader(how, got)
		defer func() { _ = z.Close() }()
		got = z
	}
	all, err := io.ReadAll(got)
	return reply{resp.StatusCode, resp.Header}, all, err
}

// failure is an answer of HTTP that is an error.
func failure(resp reply, body []byte) (*Answer, error) {
	var e struct{ Error string }
	if err := json.Unmarshal(body, &e); err != nil || e.Error == "" {
		return nil, fmt.Errorf("status %d with a body that names no error: %.300s", resp.status, body)
	}
	return &Answer{Status: resp.status, Reason: resp.header.Get("X-Inferd-Reason"), Text: e.Error}, nil
}

func (s *Server) rest(ctx context.Context, c *http.Client, packed string, r *Request) (*Answer, error) {
	resp, body, err := s.do(ctx, c, packed, http.MethodPost, r.path(r.verb()), r.body(), r.headers())
	if err != nil {
		return nil, err
	}
	if resp.status != http.StatusOK {
		return failure(resp, body)
	}
	return r.document(body)
}

// columnAnswer reads {"outputs": ...}: a value, where there is one output, or an object of them. The one output's name is not told.
func columnAnswer(body []byte) (*Answer, error) {
	var got struct{ Outputs any }
	if err := parse(body, &got); err != nil {
		return nil, fmt.Errorf("%w: %.300s", err, body)
	}
	return columnOutputs(got.Outputs)
}

func columnOutputs(outputs any) (*Answer, error) {
	a := &Answer{Outputs: map[string]string{}}
	many, ok := outputs.(map[string]any)
	if _, is := many["b64"]; is || many["bare"] != nil {
		ok = false
	}
	if !ok {
		if outputs == nil {
			return nil, errors.New("no outputs")
		}
		a.Outputs[""] = written(outputs)
		return a, nil
	}
	for name, v := range many {
		a.Outputs[name] = written(v)
	}
	return a, nil
}

func (s *Server) jobDoors() []Door {
	return []Door{{Name: "job over REST", Kind: RESTJob, Ask: s.restJob}, {Name: "job over gRPC", Kind: GRPCJob, Ask: s.grpcJob}}
}

// restJob submits, waits, and takes the result.
func (s *Server) restJob(ctx context.Context, r *Request) (*Answer, error) {
	resp, body, err := s.do(ctx, s.Client, "", http.MethodPost, r.path("submit"), r.columns(), r.headers())
	if err != nil {
		return nil, err
	}
	if resp.status != http.StatusAccepted {
		return failure(resp, body)
	}
	var job struct {
		ID, State, Error, Reason string
		Code                     json.RawMessage
	}
	if err := json.Unmarshal(body, &job); err != nil {
		return nil, fmt.Errorf("%w: %s", err, body)
	}
	id := job.ID
	for range maxTries {
		if resp, body, err = s.do(ctx, s.Client, "", http.MethodGet, "/v1/jobs/"+id+"?wait=10", nil, r.headers()); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(body, &job); err != nil || resp.status != http.StatusOK {
			return nil, fmt.Errorf("status %d: %s", resp.status, body)
		}
		if job.State != "queued" && job.State != "leased" {
			break
		}
	}
	if resp, body, err = s.do(ctx, s.Client, "", http.MethodGet, "/v1/jobs/"+id+"/result", nil, r.headers()); err != nil {
		return nil, err
	}
	if resp.status != http.StatusOK {
		return failure(resp, body)
	}
	return columnAnswer(body)
}

// codeOf is the code of that name.
func codeOf(name string) (inference.Code, error) {
	for c := inference.OK; c <= inference.Unauthenticated; c++ {
		if c.String() == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("no code is called %q", name)
}
