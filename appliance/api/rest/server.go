// server.go: the handler, from a request to its one answer.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
)

// Defaults of Options.
const (
	DefaultMaxRequestBytes = 64 << 20
	DefaultMinGzipBytes    = 32 << 10
)

// Options of the handler. Zero means default.
type Options struct {
	// MaxRequestBytes bounds a body, before and after decompression. What is over it is refused with 413, before it is read where its
	// length is declared. 0 means [DefaultMaxRequestBytes].
	MaxRequestBytes int64
	// StrictJSON keeps to RFC 8259, which TensorFlow Serving does not: on output NaN and the infinities become null and bytes that are
	// not UTF-8 become U+FFFD; on input the tokens NaN, Infinity and -Infinity are syntax errors, and so is anything after the document.
	StrictJSON bool
	// CORS adds the headers that let a page of any origin call, as --rest_api_enable_cors_support does.
	CORS bool
	// MinGzipBytes is the size from which answers are compressed for clients that accept it. 0 means [DefaultMinGzipBytes], less than 0
	// never.
	MinGzipBytes int
	// History has the newest limit events of a model, newest first; none when nothing is remembered of it. Nil: there is no such path.
	History func(model string, limit int) ([]Event, error)
	// Jobs takes and answers for what is queued. Nil: there are no such paths.
	Jobs *jobs.Service
	// Access asks who sends a request. Nil: nobody is asked.
	Access *access.Guard
	// SlowTimeout is how long an answer over HTTP/2 may take to be taken. 0: as long as it likes.
	SlowTimeout time.Duration
	// Log gets one line per request at level Debug. nil means discard.
	Log *slog.Logger
}

// New is TensorFlow Serving's REST API, under /v1/, over svc. It may be used from any number of goroutines.
func New(svc *api.Service, opts Options) http.Handler {
	if opts.MaxRequestBytes <= 0 {
		opts.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if opts.MinGzipBytes == 0 {
		opts.MinGzipBytes = DefaultMinGzipBytes
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{svc: svc, opts: opts, log: opts.Log.With("component", "rest"),
		scratch: scratches{strict: opts.StrictJSON, maxBytes: maxTensorBytes(opts.MaxRequestBytes)}}
}

// handler is immutable after New but for the pool.
type handler struct {
	svc     *api.Service
	opts    Options
	log     *slog.Logger
	scratch scratches

	lingering atomic.Int32 // connections that are being ended
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if h.opts.CORS {
		header := w.Header()
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Access-Control-Allow-Methods", "POST, GET")
		header.Set("Access-Control-Allow-Headers", "Content-Type")
		if h.opts.Access != nil {
			header.Set("Access-Control-Allow-Headers", "Content-Type, Authorization")
		}
	}
	if _, ok := cutWord(r.URL.Path, "/v1/"); !ok {
		body := appendError(nil, "Not found: "+cut(r.URL.EscapedPath(), 256)+". The REST API is under /v1/models")
		write(w, r, http.StatusNotFound, body, 0)
		return
	}
	if r.Method == http.MethodOptions {
		status := http.StatusOK
		if origin := r.Header.Get("Origin"); !strings.Contains(origin, "http://") && !strings.Contains(origin, "https://") {
			status = http.StatusBadRequest
		}
		write(w, r, status, nil, 0)
		return
	}
	s := h.scratch.take()
	o := api.Observation{Protocol: "rest"}
	to, err := parse(r)
	if err == nil {
		o.Method, o.Model = to.act, to.spec.Model
		if err = h.enter(s, r, &to); err == nil {
			err = h.answer(s, w, r, to, start, &o)
		}
	}
	status := s.status
	if err != nil {
		o.Code, o.Reason = err.Code, err.Reason
		status = api.HTTPStatus(err)
		s.enc.out = appendError(s.enc.out[:0], err.Msg)
		explain(w.Header(), err, status)
		if c := access.Challenge(err, r.Header["Authorization"] != nil); c != "" {
			w.Header()["Www-Authenticate"] = []string{c}
		}
	}
	o.Took = time.Since(start)
	if h.opts.SlowTimeout > 0 && r.ProtoMajor > 1 { // of HTTP/1 the connection itself is watched
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.opts.SlowTimeout))
	}
	if s.unread && lingers(r) {
		h.linger(w, r, status, s.enc.out)
	} else {
		write(w, r, status, s.enc.out, h.opts.MinGzipBytes)
		o.Took = time.Since(start)
	}
	if err == nil { // after a failure somebody may still read the inputs
		h.scratch.give(s)
	}
	h.svc.Observe(o)
	if h.log.Enabled(r.Context(), slog.LevelDebug) {
		h.logRequest(r, o, status, err)
	}
}

func (h *handler) logRequest(r *http.Request, o api.Observation, status int, err *inference.Error) {
	attrs := []slog.Attr{slog.String("method", r.Method), slog.String("path", cut(r.URL.EscapedPath(), 256)), slog.Int("status", status),
		slog.String("model", o.Model), slog.Int64("version", o.Version), slog.String("client", r.RemoteAddr), slog.Duration("took", o.Took)}
	if err != nil {
		attrs = append(attrs, slog.String("err", cut(err.Error(), 1024)))
	}
	h.log.LogAttrs(r.Context(), slog.LevelDebug, "request", attrs...)
}

// answer writes the body of a good answer to s.enc.out.
func (h *handler) answer(s *scratch, w http.ResponseWriter, r *http.Request, to route, start time.Time, o *api.Observation) (failure *inference.Error) {
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
	if to.job != "" {
		return h.jobs(s, w, r, to, o)
	}
	if to.spec.Model == "" && to.act != actList {
		return invalid("Missing model name in request.")
	}
	switch to.act {
	case actPredict:
		return h.predict(s, w, r, to.spec, start, o)
	case actClassify, actRegress:
		return h.examples(s, w, r, to, start, o)
	case actSubmit:
		return h.submit(s, w, r, to, start)
	case actList:
		s.enc.out = appendModels(s.enc.out, h.models(to.grant))
	case actStatus:
		versions, err := h.svc.Status(to.spec)
		if err != nil {
			return inference.AsError(err)
		}
		s.enc.out = appendStatus(s.enc.out, versions)
	case actHistory:
		if h.opts.History == nil {
			return malformed(r)
		}
		return h.history(s, r, to.spec.Model)
	case actMetadata:
		to.spec.Steady = true
		handle, err := h.svc.Acquire(to.spec)
		if err != nil {
			return inference.AsError(err)
		}
		defer handle.Release()
		o.Version = handle.Version().Number
		s.enc.out = appendMetadata(s.enc.out, handle.Version())
	default:
		return malformed(r)
	}
	return nil
}

// models are those that the caller may know of.
func (h *handler) models(grant *access.Grant) []modelStatus {
	names := h.svc.Models()
	models := make([]modelStatus, 0, len(names))
	for _, name := range names {
		if !grant.For(name) {
			continue
		}
		versions, _ := h.svc.Status(inference.Spec{Model: name}) // none have been seen yet, or it has just gone
		models = append(models, modelStatus{name, h.svc.Available(name), versions})
	}
	return models
}

func (h *handler) predict(s *scratch, w http.ResponseWriter, r *http.Request, spec inference.Spec, start time.Time, o *api.Observation) *inference.Error {
	entry, timeout, bad := h.admit(s, w, r, spec, start)
	if bad != nil {
		return bad
	}
	defer entry.Leave()
	spec.Keys = keys(r.Header)
	handle, err := h.svc.Acquire(spec)
	if err != nil {
		// TensorFlow Serving reads the document before it looks for the model.
		why := s.explainer()
		if _, _, bad := why.prologue(); bad != nil {
			return bad
		}
		return inference.AsError(err)
	}
	defer handle.Release()
	v := handle.Version()
	o.Version = v.Number
	sig, bad := s.read(v)
	if sig != nil {
		o.Signature = sig.Key
	}
	if bad != nil {
		return bad
	}
	resp, bad := h.call(s, r, handle, &entry, start, timeout)
	if bad != nil {
		return bad
	}
	defer resp.Release()
	return s.write(resp)
}

// admit asks for a place and reads the body into s.body. The caller leaves the entry. The timeout is the client's, 0 when it has none.
func (h *handler) admit(s *scratch, w http.ResponseWriter, r *http.Request, spec inference.Spec, start time.Time) (api.Entry, time.Duration, *inference.Error) {
	s.unread = true
	timeout, bad := requestTimeout(r)
	if bad != nil {
		return api.Entry{}, 0, bad
	}
	caller, bad := h.caller(r, start, timeout)
	if bad != nil {
		return api.Entry{}, 0, bad
	}
	entry, bad := h.svc.Enter(spec, caller)
	if bad != nil {
		return api.Entry{}, 0, bad
	}
	s.unread = r.ContentLength > h.opts.MaxRequestBytes // else readBody begins
	if s.body, bad = readBody(s.body, w, r, h.opts.MaxRequestBytes, entry.Grow); bad != nil {
		entry.Leave()
		return api.Entry{}, 0, bad
	}
	return entry, timeout, nil
}

// call has s.req answered. The caller releases the response.
func (h *handler) call(s *scratch, r *http.Request, handle *inference.Handle, entry *api.Entry, start time.Time, timeout time.Duration) (*inference.Response, *inference.Error) {
	entry.Fill(&s.req)
	defer s.req.Ticket.Leave()
	ctx := r.Context()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(timeout))
		defer cancel()
	}
	resp, err := h.svc.Predict(ctx, handle, &s.req)
	if err != nil {
		return nil, inference.AsError(err)
	}
	return resp, nil
}

// requestTimeout is what the client says it waits, 0 when it does not say.
func requestTimeout(r *http.Request) (time.Duration, *inference.Error) {
	values := r.Header["Request-Timeout"]
	if len(values) == 0 {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(values[0]), 64)
	if err != nil || !(seconds > 0) || math.IsInf(seconds, 0) {
		return 0, invalid("Request-Timeout: %q is not a number of seconds above zero; send a decimal number such as 2.5, or leave the header out", cut(values[0], 64))
	}
	if seconds > api.MaxDeadline.Seconds() {
		return api.MaxDeadline, nil
	}
	return max(time.Duration(seconds*float64(time.Second)), 1), nil
}

// appendError is the body of an answer that is an error.
func appendError(out []byte, message string) []byte {
	out = append(out, "{\n    \"error\": "...)
	out = appendString(out, []byte(cut(message, 8<<10)), true)
	return append(out, "\n}"...)
}
