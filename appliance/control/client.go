// client.go: the other end of the door, for the command line.
package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 30

// Client talks to a running inferd. Its methods may be called from any goroutine.
type Client struct {
	http *http.Client
	base string
	what string // the address, for messages
	err  error  // why nothing can be reached under the address

	authorization string // shown over the network alone
}

// Dial makes a client for a unix socket's path or for an http:// address. Nothing is connected yet.
func Dial(address string) *Client {
	if strings.Contains(address, "://") {
		c := &Client{http: &http.Client{}, base: strings.TrimRight(address, "/"), what: address}
		if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			c.err = fmt.Errorf("%s is no address; write a socket's path, or http://host:port", address)
		}
		return c
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, base: "http://inferd", what: address, err: checkPath(address)}
}

// With shows the authorization, "" for none, and trusts whom trust does, where the address is no socket's. It returns c.
func (c *Client) With(authorization string, trust *tls.Config) *Client {
	if c.base != "http://inferd" {
		c.authorization = authorization
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = trust
		c.http.Transport = t
	}
	return c
}

// Close ends the connections that wait for a next request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends one request and reads the whole answer, of at most 1 GiB. The deadline of ctx is the request's own, also in inferd. A
// connection that fails is an error that says what to do.
func (c *Client) Do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	return c.DoWith(ctx, method, path, nil, body)
}

// DoWith is Do with headers, which may be nil.
func (c *Client) DoWith(ctx context.Context, method, path string, header http.Header, body []byte) (status int, answer []byte, err error) {
	if c.err != nil {
		return 0, nil, c.err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if c.authorization != "" {
		req.Header.Set("Authorization", c.authorization)
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline), time.Millisecond) // none left is found out by the client itself
		req.Header.Set("Request-Timeout", strconv.FormatFloat(left.Seconds(), 'f', 3, 64))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("the answer from %s broke off: %w", c.what, err)
	case len(answer) > maxAnswer:
		return 0, nil, fmt.Errorf("the answer from %s is larger than %d bytes", c.what, maxAnswer)
	}
	return resp.StatusCode, answer, nil
}

// explain says why no request could be made, and what to do about it.
func (c *Client) explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s gave no answer in time: %w", c.what, err)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no inferd runs here: there is no socket %s; `inferd serve` starts one, --address names another place: %w", c.what, cause(err))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no inferd answers on %s; `inferd serve` starts one, --address names another place: %w", c.what, cause(err))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not open %s; be in the socket's group, or be its owner: %w", c.what, cause(err))
	}
	return fmt.Errorf("no answer from %s; --address names another place: %w", c.what, err)
}

// Status asks for the whole status. It needs the unix socket.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	code, answer, err := c.Do(ctx, http.MethodGet, "/control/status", nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, c.elsewhere("the status", code)
	}
	s := new(Status)
	if err := json.Unmarshal(answer, s); err != nil {
		return nil, fmt.Errorf("status from %s: %w; is it an inferd?", c.what, err)
	}
	return s, nil
}

// Rescan asks the updater to look at the model directories now.
func (c *Client) Rescan(ctx context.Context) error {
	code, _, err := c.Do(ctx, http.MethodPost, "/control/rescan", nil)
	if err == nil && code != http.StatusNoContent {
		err = c.elsewhere("a rescan", code)
	}
	return err
}

// elsewhere says that a verb was tried on something that is no control socket.
func (c *Client) elsewhere(verb string, code int) error {
	return fmt.Errorf("%s answers HTTP %d: %s is had on the control socket only; give its path as --address", c.what, code, verb)
}
