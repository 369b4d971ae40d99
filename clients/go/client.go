// client.go: one appliance, how it is asked, and what it says when it refuses.
package inferd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Options of a Client. The zero value is good.
type Options struct {
	Header     http.Header   // sent with each request and each handshake
	Token      string        // shown in each of them, for an appliance that asks for one; no error and no log line has it
	TLS        *tls.Config   // for https and wss; nil trusts the system's authorities
	Attempts   int           // how often a request is tried; 0: until its context ends
	MinBackoff time.Duration // the first wait between two tries, 100 ms when zero; it doubles
	MaxBackoff time.Duration // the longest, 10 s when zero; what the appliance asks for is waited in any case
	MaxAnswer  int64         // the largest answer that is read, 256 MiB when zero
}

// Client asks one appliance. It holds no goroutine; connections that idle are closed by CloseIdle.
type Client struct {
	base *url.URL
	o    Options
	http *http.Client
}

// Limits and defaults.
const (
	defaultMinBackoff = 100 * time.Millisecond
	defaultMaxBackoff = 10 * time.Second
	defaultMaxAnswer  = 256 << 20
	maxHint           = time.Hour // what an appliance asks for beyond this is a mistake
	dialTimeout       = 10 * time.Second
	answerTimeout     = 2 * time.Minute // of one try over HTTP, a long poll included
)

// New is a client of the appliance at base: http://host:8501, https://host:8501 or host:8501. It connects to nothing yet.
func New(base string, o Options) (*Client, error) {
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("inferd: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("inferd: %.200q is no address of an appliance; write http://host:8501", base)
	}
	u.Path, u.RawQuery, u.Fragment = strings.TrimRight(u.Path, "/"), "", ""
	o.MinBackoff = cmp.Or(max(o.MinBackoff, 0), defaultMinBackoff)
	o.MaxBackoff = max(cmp.Or(max(o.MaxBackoff, 0), defaultMaxBackoff), o.MinBackoff)
	o.MaxAnswer = cmp.Or(max(o.MaxAnswer, 0), defaultMaxAnswer)
	o.Header = o.Header.Clone()
	if o.Token != "" {
		if o.Header == nil {
			o.Header = make(http.Header)
		}
		o.Header.Set("Authorization", "Bearer "+o.Token)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig, t.DialContext = o.TLS.Clone(), (&net.Dialer{Timeout: dialTimeout}).DialContext
	return &Client{base: u, o: o, http: &http.Client{Transport: t, Timeout: answerTimeout}}, nil
}

// CloseIdle closes the connections that nobody uses at the moment. The client can be used again.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Error is what the appliance said instead of an answer.
type Error struct {
	Status     int           // of HTTP; 0 over a stream
	Code       string        // as RESOURCE_EXHAUSTED; over HTTP only where the answer has it
	Reason     string        // one word, as "rate" or "queue_full"
	Message    string        // for people
	RetryAfter time.Duration // when to come again, 0: the appliance did not say
}

func (e *Error) Error() string {
	where := cmp.Or(e.Code, "refused")
	if e.Status != 0 {
		where = fmt.Sprintf("HTTP %d", e.Status)
	}
	return fmt.Sprintf("%s (%s)", e.Message, where)
}

// Temporary is whether the same request may succeed later: the appliance is busy, full, or about to go.
func (e *Error) Temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusInsufficientStorage:
		return true
	case 0:
		return e.Code == codeUnavailable || e.Code == codeExhausted
	}
	return e.RetryAfter > 0 && e.Status != http.StatusConflict // a job that is not finished is no failure to try again
}

// Codes of errors that a later try may not meet.
const (
	codeUnavailable = "UNAVAILABLE"
	codeExhausted   = "RESOURCE_EXHAUSTED"
)

// backoff is how long to wait before try number n (from 0), when the appliance asked for hint. Half of the wait is left to chance, so that a
// thousand clients of a box that restarts do not come back as one.
func (c *Client) backoff(n int, hint time.Duration) time.Duration {
	d := c.o.MaxBackoff
	if n < 32 {
		d = min(d, c.o.MinBackoff<<n)
	}
	if d <= 0 {
		d = c.o.MaxBackoff // the shift ran over
	}
	d = d/2 + rand.N(d/2+1)
	if hint = min(hint, maxHint); hint > 0 {
		return max(d, hint+rand.N(hint/4+1))
	}
	return d
}

// sleep waits, or says why not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answer is what one try brought.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do asks until it is answered, refused for good, out of attempts, or ctx ends. Only what may be asked twice is asked with it.
func (c *Client) do(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	return c.ask(ctx, method, path, header, body, (*Error).Temporary)
}

func (c *Client) ask(ctx context.Context, method, path string, header http.Header, body []byte, temporary func(*Error) bool) (answer, error) {
	for n := 0; ; n++ {
		a, err := c.once(ctx, method, path, header, body)
		if err == nil {
			return a, nil
		}
		var refused *Error
		hint := time.Duration(0)
		if errors.As(err, &refused) {
			if !temporary(refused) {
				return a, err
			}
			hint = refused.RetryAfter
		} else if errors.Is(err, errTooLarge) {
			return a, err
		}
		if ctx.Err() != nil || c.o.Attempts > 0 && n+1 >= c.o.Attempts {
			return a, err
		}
		if ended := sleep(ctx, c.backoff(n, hint)); ended != nil {
			return a, fmt.Errorf("%w; the last try: %w", ended, err)
		}
	}
}

var errTooLarge = errors.New("the answer is larger than Options.MaxAnswer")

func (c *Client) once(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	maps.Copy(req.Header, c.o.Header)
	maps.Copy(req.Header, header)
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(resp.Body, c.o.MaxAnswer+1))
	a := answer{resp.StatusCode, resp.Header, got}
	switch {
	case err != nil:
		return a, fmt.Errorf("%s %s: %w", method, path, err)
	case int64(len(got)) > c.o.MaxAnswer:
		return a, fmt.Errorf("%s %s: %w (%d bytes)", method, path, errTooLarge, c.o.MaxAnswer)
	case resp.StatusCode/100 != 2:
		return a, refusal(a)
	}
	return a, nil
}

// refusal is the error that an answer of a status above 299 stands for.
func refusal(a answer) *Error {
	var said struct{ Error, Code, Reason string }
	if json.Unmarshal(a.body, &said) != nil || said.Error == "" {
		said.Error = strings.TrimSpace(string(a.body[:min(len(a.body), 200)]))
	}
	e := &Error{Status: a.status, Code: said.Code, Message: cmp.Or(said.Error, http.StatusText(a.status), "no reason was given")}
	e.Reason = cmp.Or(a.header.Get("X-Inferd-Reason"), said.Reason)
	e.RetryAfter = retryAfter(a.header.Get("Retry-After"), time.Now())
	return e
}

// retryAfter reads the header's two forms; what is neither is none.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
		return time.Duration(min(max(n, 0), int(maxHint/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), maxHint)
	}
	return 0
}
