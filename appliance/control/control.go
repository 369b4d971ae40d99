// Package control is the operators' door: HTTP on a unix socket that only the service's own user (and root) may open.
//
// Invariants:
//  1. Nothing that changes the appliance is reachable elsewhere.
//  2. The socket file is replaced only when nobody answers on it: a second daemon says so and ends.
//  3. Status is data ([Status]); the command line turns it into words.
//
// The same socket also carries the REST interface, so that the command line predicts without knowing a port.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Status is the whole appliance at one moment.
type Status struct {
	Version    string      `json:"version"`
	PID        int         `json:"pid"`
	Since      time.Time   `json:"since"`
	Live       bool        `json:"live"`
	Ready      bool        `json:"ready"`
	GRPC       string      `json:"grpc,omitempty"` // the address that is bound
	HTTP       string      `json:"http,omitempty"`
	Runtime    Runtime     `json:"runtime"`
	Conditions []Condition `json:"conditions"`
	Models     []Model     `json:"models"`
}

// Runtime says which TensorFlow runs, or why none does.
type Runtime struct {
	Library   string `json:"library,omitempty"`
	Isolation string `json:"isolation"`
	Error     string `json:"error,omitempty"`
}

// Condition is something that is not as it should be.
type Condition struct {
	Code     string    `json:"code"`
	Severity string    `json:"severity"`
	Model    string    `json:"model,omitempty"`
	Message  string    `json:"message"`
	Since    time.Time `json:"since"`
}

// Model is one model with every version that is known of it, highest first.
type Model struct {
	Name     string    `json:"name"`
	BasePath string    `json:"base_path"`
	Ready    bool      `json:"ready"`
	Optional bool      `json:"optional,omitempty"`
	Problem  string    `json:"problem,omitempty"` // about the model as a whole: nothing found, wrong folder
	Versions []Version `json:"versions"`
}

// Version is one version. Stage is the updater's word for where it stands, State is TensorFlow Serving's.
type Version struct {
	Number  int64     `json:"version"`
	State   string    `json:"state"`
	Stage   string    `json:"stage,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`
	Worker  *Worker   `json:"worker,omitempty"` // of a live version
}

// Worker is the process behind a live version.
type Worker struct {
	PID          int    `json:"pid"`
	State        string `json:"state"`
	PrivateBytes int64  `json:"private_bytes"`
	Restarts     int    `json:"restarts"`
	LastDeath    string `json:"last_death,omitempty"`
}

// Options say what the door opens to.
type Options struct {
	Status func() Status
	Rescan func()
	REST   http.Handler // everything that is not below /control/
}

// Handler serves the door.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /control/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.Status()) // the client is gone when this fails
	})
	mux.HandleFunc("POST /control/rescan", func(w http.ResponseWriter, _ *http.Request) {
		o.Rescan()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.Handle("/", o.REST)
	return mux
}

// Listen opens the socket with mode 0660. A socket that nobody answers on is replaced; one that answers is an error.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if c, dialErr := net.DialTimeout("unix", path, time.Second); dialErr == nil {
			_ = c.Close()
			return nil, fmt.Errorf("control socket %s: another inferd answers on it; stop that one, or give this one its own --state-dir or --listen.control", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// Client talks to a running inferd.
type Client struct {
	http *http.Client
	base string
	what string // for messages
}

// Dial makes a client for a unix socket's path or for an http:// address. Nothing is connected yet.
func Dial(address string) *Client {
	if strings.Contains(address, "://") {
		return &Client{http: &http.Client{}, base: strings.TrimRight(address, "/"), what: address}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, base: "http://inferd", what: address}
}

// Do sends one request and reads the whole answer, of at most 1 GiB. A connection that fails is an error that says what to do.
func (c *Client) Do(ctx context.Context, method, path string, body io.Reader) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return 0, nil, fmt.Errorf("no inferd answers on %s (%w); is it running, and may you open it? --address names another place", c.what, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	return resp.StatusCode, answer, err
}

// Status asks for the whole status. It needs the unix socket.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	code, answer, err := c.Do(ctx, http.MethodGet, "/control/status", nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d to /control/status: the status is given on the control socket only", c.what, code)
	}
	s := new(Status)
	if err := json.Unmarshal(answer, s); err != nil {
		return nil, fmt.Errorf("status from %s: %w", c.what, err)
	}
	return s, nil
}

// Rescan asks the updater to look at the model directories now.
func (c *Client) Rescan(ctx context.Context) error {
	code, _, err := c.Do(ctx, http.MethodPost, "/control/rescan", nil)
	if err == nil && code != http.StatusNoContent {
		err = fmt.Errorf("%s answers %d to /control/rescan", c.what, code)
	}
	return err
}
