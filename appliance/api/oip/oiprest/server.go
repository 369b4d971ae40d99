// server.go: the handler, from a request to its one answer.
package oiprest

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
)

// maxAsked bounds the bodies of requests that are not for inference.
const maxAsked = 64 << 10

// Options of the handler. Zero means default.
type Options struct {
	// Door are the options of the REST API on the same port, for what both have in common: limits of size and time, strictness, who asks.
	Door rest.Options
	// StrictJSON is as in [rest.Options].
	StrictJSON bool
	// Operators are those who may load and unload over a unix socket. Nil: nobody.
	Operators *access.Operators
	// Log gets one line per request at level Debug. nil means discard.
	Log *slog.Logger
}

// New is the protocol under /v2. It may be used from any number of goroutines.
func New(svc *api.Service, shared *oip.Service, opts Options) http.Handler {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Door.MaxRequestBytes <= 0 {
		opts.Door.MaxRequestBytes = rest.DefaultMaxRequestBytes
	}
	return &handler{svc: svc, oip: shared, opts: opts, door: rest.NewDoor(opts.Door), maxTensor: rest.MaxTensorBytes(opts.Door.MaxRequestBytes), log: opts.Log.With("component", "oip")}
}

// handler is immutable.
type handler struct {
	svc       *api.Service
	oip       *oip.Service
	opts      Options
	door      *rest.Door
	maxTensor int
	log       *slog.Logger
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	s := take()
	o := api.Observation{Protocol: "oip"}
	status := http.StatusOK
	to, err := parse(r)
	if err == nil && (to.act == actLive || to.act == actReady) {
		s.out, status = h.health(s.out, to.act)
		h.door.Answer(w, r, status, s.out, false)
		s.give()
		return
	}
	o.Method, o.Model = to.act, to.spec.Model
	if err == nil {
		status, err = h.answer(s, w, r, to, start, &o)
	}
	if err != nil {
		o.Code, o.Reason = err.Code, err.Reason
		status = h.door.Explain(w, r, err)
		s.out, s.header = appendError(s.out[:0], err.Msg), -1
	}
	if s.header >= 0 {
		header := w.Header()
		header["Content-Type"] = []string{"application/octet-stream"}
		header[LengthHeader] = []string{strconv.Itoa(s.header)}
	}
	o.Took = time.Since(start)
	h.door.Answer(w, r, status, s.out, s.unread)
	if !s.unread {
		o.Took = time.Since(start)
	}
	if err == nil { // after a failure somebody may still read the inputs
		s.give()
	}
	h.svc.Observe(o)
	if h.log.Enabled(r.Context(), slog.LevelDebug) {
		attrs := []slog.Attr{slog.String("method", r.Method), slog.String("path", oip.Cut(r.URL.EscapedPath())), slog.Int("status", status),
			slog.String("model", o.Model), slog.Int64("version", o.Version), slog.String("client", r.RemoteAddr), slog.Duration("took", o.Took)}
		if err != nil {
			attrs = append(attrs, slog.String("err", oip.Cut(err.Error())))
		}
		h.log.LogAttrs(r.Context(), slog.LevelDebug, "request", attrs...)
	}
}

func appendError(out []byte, message string) []byte {
	out = append(out, `{"error":`...)
	if len(message) > 8<<10 {
		message = message[:8<<10] + "..."
	}
	return append(rest.AppendText(out, []byte(message)), '}')
}

// health needs no token: who may ask whether requests should be sent here is not who may send them.
func (h *handler) health(out []byte, act string) ([]byte, int) {
	ok := h.oip.Live()
	out = strconv.AppendBool(append(out, `{"live":`...), ok)
	if act == actReady {
		ok = h.oip.Ready()
		out = strconv.AppendBool(append(out, `,"ready":`...), ok)
	}
	if out = append(out, '}'); !ok {
		return out, http.StatusServiceUnavailable
	}
	return out, http.StatusOK
}

// answer writes the body of a good answer to s.out.
func (h *handler) answer(s *scratch, w http.ResponseWriter, r *http.Request, to route, start time.Time, o *api.Observation) (status int, failure *inference.Error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // net/http knows what to do with it
		}
		h.log.Error("a request broke the code that served it", "model", to.spec.Model, "err", p, "stack", string(debug.Stack()))
		failure = inference.Errorf(inference.Internal, inference.ReasonRuntime, "internal error; the log of inferd has the cause")
	}()
	if to.act == actModel { // needs no token, as above
		return h.modelReady(s, to)
	}
	s.unread = r.Method == http.MethodPost // if it is refused here
	grant, err := h.door.Who(r)
	if err != nil {
		return 0, err
	}
	if to.act != actLoad && to.act != actUnload { // these are held to it with the rest of what they need
		if err := grant.May(needs(to.act), to.spec.Model); err != nil {
			return 0, err
		}
	}
	s.unread = false
	status = http.StatusOK
	switch to.act {
	case actPredict:
		return status, h.infer(s, w, r, to.spec, start, o)
	case actServer:
		m := h.oip.Server()
		m.Extensions = append(slices.Clone(m.Extensions), oip.BinaryTensorData)
		return status, s.json(m)
	case actMetadata, actConfig:
		m, version, err := h.oip.Model(to.spec, r.URL.Query().Get("signature_name"))
		if o.Version = version; err != nil {
			return 0, err
		}
		if to.act == actConfig {
			return status, s.json(m.Config())
		}
		return status, s.json(m)
	case actStats:
		list, err := h.oip.Statistics(grant, to.spec)
		if err != nil {
			return 0, err
		}
		return status, s.json(struct {
			Stats []oip.ModelStatistics `json:"model_stats"`
		}{list})
	case actIndex:
		asked, err := ask(w, r)
		if err != nil {
			return 0, err
		}
		return status, s.json(h.oip.Index(grant, asked.Ready))
	default:
		return status, h.control(s, w, r, to, grant)
	}
}

// needs are the scopes of which one is enough for the act.
func needs(act string) access.Scope {
	switch act {
	case actPredict:
		return access.Predict
	case actStats:
		return access.Predict | access.Submit | access.Metrics
	default: // what a model is, and how it does
		return access.Predict | access.Submit
	}
}

func (s *scratch) json(v any) *inference.Error {
	out, err := json.Marshal(v)
	if err != nil {
		return inference.AsError(err)
	}
	s.out = append(s.out, out...)
	return nil
}

func (h *handler) modelReady(s *scratch, to route) (int, *inference.Error) {
	ready, err := h.oip.ModelReady(to.spec)
	if err != nil {
		return 0, err
	}
	s.out = append(rest.AppendText(append(s.out, `{"name":`...), []byte(to.spec.Model)), `,"ready":`...)
	if s.out = append(strconv.AppendBool(s.out, ready), '}'); !ready {
		return http.StatusServiceUnavailable, nil
	}
	return http.StatusOK, nil
}

// control loads or unloads.
func (h *handler) control(s *scratch, w http.ResponseWriter, r *http.Request, to route, grant *access.Grant) *inference.Error {
	asked, err := ask(w, r)
	if err != nil {
		return err
	}
	c := oip.Caller{Grant: grant, Asked: h.opts.Door.Access != nil, Name: "a client"}
	c.Local = h.local(r, &c)
	if to.act == actUnload {
		err = h.oip.Unload(r.Context(), c, to.spec.Model)
	} else {
		err = h.oip.Load(r.Context(), c, to.spec.Model, slices.Sorted(maps.Keys(asked.Parameters)))
	}
	if err == nil {
		s.out = append(s.out, "{}"...)
	}
	return err
}

// local reports whether the request comes from this machine, and over a unix socket from an operator. A web page's does not, wherever its browser runs.
func (h *handler) local(r *http.Request, c *oip.Caller) bool {
	if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); unix {
		p, known := access.PeerFrom(r.Context())
		if known {
			c.Name = access.UserName(p.UID)
		}
		return known && h.opts.Operators != nil && h.opts.Operators.Include(p)
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil {
		c.Name = at.Addr().String()
	}
	return err == nil && at.Addr().Unmap().IsLoopback() && r.Header.Get("Origin") == ""
}

// asked is the body of a request to the repository.
type asked struct {
	Ready      bool                       `json:"ready"`
	Parameters map[string]json.RawMessage `json:"parameters"`
}

func ask(w http.ResponseWriter, r *http.Request) (a asked, failure *inference.Error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsked))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return a, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the request body has more than %d bytes, which is the limit here; models and configurations are not sent, they lie in the models directory", maxAsked)
	case err != nil:
		e := inference.Errorf(inference.Canceled, inference.ReasonInput, "the request body could not be read to its end")
		e.Err = err
		return a, e
	case len(body) == 0:
		return a, nil
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, oip.Invalid("the request body is no JSON object as this path takes it: %v", err)
	}
	return a, nil
}
