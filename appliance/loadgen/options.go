// options.go: what a run is, and whether it makes sense.
package loadgen

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/inferd/inferd/inference"
)

// closedLoop is Result.Arrivals where each caller waits for its answer before it sends again.
const closedLoop = "closed"

// Limits of the options.
const (
	MaxInFlight = 20000
	MaxClients  = 250
	maxRows     = 1 << 20
)

// Options of a run. Zero means the default that is named.
type Options struct {
	Rates    []float64 // of an open loop, a step each; none: a closed loop
	Arrivals string    // Fixed
	Callers  int       // of the closed loop; 1

	Duration time.Duration // measured, a step; 10 s
	Warmup   time.Duration // before it, of the same load
	Deadline time.Duration // sent with each request, and what good means; 0: none
	Timeout  time.Duration // how long an answer is waited for; the deadline and 5 s, 10 s without one

	Rows      int64  // of made-up inputs; 1
	Input     []byte // the request instead, as JSON
	Signature string // serving_default
	Priority  string // sent as X-Inferd-Priority

	InFlight       int    // at a time, over REST as many connections; 1000
	Clients        int    // loopback addresses to send from; 1
	From           net.IP // of this machine, to send from with one client; the kernel's choice
	ExpectContinue bool   // REST: the body waits for 100 Continue

	Token    string // shown with each request; no result, error or progress has it
	TLS      bool
	CA       string // PEM file of the authorities to trust; the system's
	Insecure bool   // trust any certificate

	Seed uint64
	// Progress is called about once a second while a step runs, by Run's goroutine or one that Run waits for.
	Progress func(Progress)
}

// Progress is how far a step is.
type Progress struct {
	Rate                            float64 // 0 in a closed loop
	Callers                         int
	Gone, Whole                     time.Duration
	Sent, Good, Refused, Failed, In int64
}

// fill puts the defaults in and says what is wrong.
func (o *Options) fill(t Target) error {
	set(&o.Arrivals, Fixed)
	set(&o.Callers, 1)
	set(&o.Duration, 10*time.Second)
	set(&o.Rows, 1)
	set(&o.Signature, inference.DefaultSignature)
	set(&o.InFlight, 1000)
	set(&o.Clients, 1)
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
		if o.Deadline > 0 {
			o.Timeout = o.Deadline + 5*time.Second
		}
	}
	host, _, err := net.SplitHostPort(t.Address)
	switch {
	case err != nil:
		return fmt.Errorf("%.200q is no address; write host:port", t.Address)
	case t.Protocol != REST && t.Protocol != GRPC:
		return fmt.Errorf("protocol %.40q: write %s or %s", t.Protocol, REST, GRPC)
	case o.Arrivals != Fixed && o.Arrivals != Poisson:
		return fmt.Errorf("arrivals %.40q: write %s or %s", o.Arrivals, Fixed, Poisson)
	case o.Duration < 0 || o.Duration > 24*time.Hour:
		return fmt.Errorf("duration %v: write a time above zero, of at most a day", o.Duration)
	case o.Warmup < 0 || o.Warmup > time.Hour:
		return fmt.Errorf("warmup %v: write a time of at most an hour", o.Warmup)
	case o.Deadline < 0 || o.Timeout < 0:
		return fmt.Errorf("deadline %v, timeout %v: write times above zero", o.Deadline, o.Timeout)
	case o.Deadline > 0 && o.Deadline < time.Millisecond:
		return fmt.Errorf("deadline %v: write at least 1ms", o.Deadline)
	case o.Rows < 1 || o.Rows > maxRows:
		return fmt.Errorf("rows %d: write 1 to %d", o.Rows, maxRows)
	case o.InFlight < 1 || o.InFlight > MaxInFlight:
		return fmt.Errorf("in flight %d: write 1 to %d", o.InFlight, MaxInFlight)
	case o.Callers < 1 || o.Callers > MaxInFlight:
		return fmt.Errorf("callers %d: write 1 to %d", o.Callers, MaxInFlight)
	case o.Clients < 1 || o.Clients > MaxClients:
		return fmt.Errorf("clients %d: write 1 to %d", o.Clients, MaxClients)
	case o.Clients > 1 && !loopback(host):
		return fmt.Errorf("several clients are loopback addresses of this machine, and %s is not on its loopback; measure 127.0.0.1, or run the bench on several machines", t.Address)
	case o.ExpectContinue && t.Protocol != REST:
		return fmt.Errorf("100 Continue is HTTP's; use protocol %s", REST)
	}
	for i := range len(o.Priority) {
		if c := o.Priority[i]; c <= ' ' || c >= 0x7f {
			return fmt.Errorf("priority %.40q: write a word", o.Priority)
		}
	}
	if len(o.Rates) == 0 {
		o.InFlight = o.Callers
	}
	return nil
}

func set[T comparable](to *T, value T) {
	var zero T
	if *to == zero {
		*to = value
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.To4() != nil && ip.IsLoopback()
}

// tlsConfig is nil for plain connections.
func (o *Options) tlsConfig(t Target) (*tls.Config, error) {
	if !o.TLS && !t.TLS && o.CA == "" && !o.Insecure {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(t.Address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, InsecureSkipVerify: o.Insecure, ClientSessionCache: tls.NewLRUClientSessionCache(0), MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", o.CA)
		}
	}
	return c, nil
}

// Check says what is wrong with the options for the target, before anything is sent. New does the same.
func (o Options) Check(t Target) error { return o.fill(t) }
