// doors.go: who is let in, how much of everything there may be at a door, and which doors may be open to other machines.
package config

import (
	"fmt"
	"net"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// Access is about who may use the ports and the unix sockets.
type Access struct {
	TokensFile string `yaml:"tokens_file" doc:"File with the sums of the tokens that are let in, written by \"inferd token\", usually /etc/inferd/tokens.yaml. Every request on a port then needs a token, but for the health probes; without the file nobody is let in. It is read again when it changes. Empty: nobody is asked."`
	Operators  string `yaml:"operators" doc:"Group whose members may change things over the control socket, beside root and inferd's own user. Everybody else whom the socket's mode lets in may read and predict. Empty: none."`
}

func defaultLimits() Limits {
	return Limits{MaxRequestBytes: 64 << 20, MaxHeaderBytes: 64 << 10, MaxConnections: 16384, MaxStreams: 1024,
		HeaderTimeout: 10 * time.Second, BodyTimeout: 5 * time.Minute, SlowTimeout: 30 * time.Second}
}

func (c *checker) limits(l *Limits) {
	c.number("limits.max_request_bytes", int64(l.MaxRequestBytes), minMessage, maxMessage)
	c.number("limits.max_header_bytes", int64(l.MaxHeaderBytes), 4<<10, 16<<20)
	c.number("limits.max_connections", int64(l.MaxConnections), 0, 1<<20)
	c.number("limits.client_connections", int64(l.ClientConnections), 0, 1<<20)
	c.number("limits.max_streams", int64(l.MaxStreams), 1, 1<<20)
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{"limits.header_timeout", l.HeaderTimeout}, {"limits.body_timeout", l.BodyTimeout}, {"limits.slow_timeout", l.SlowTimeout}} {
		c.duration(d.key, d.d, 100*time.Millisecond, 24*time.Hour)
	}
	if l.BodyTimeout < l.HeaderTimeout {
		c.addf("limits.body_timeout", "%s is less than limits.header_timeout, which is %s and a part of it", formatDuration(l.BodyTimeout), formatDuration(l.HeaderTimeout))
	}
}

func (c *checker) access(a *Access) {
	c.dir("access.tokens_file", a.TokensFile)
	if a.Operators == "" {
		return
	}
	if _, err := user.LookupGroup(a.Operators); err != nil {
		c.addf("access.operators", "this machine has no group %q; make it, or name another", shorten(a.Operators))
	}
}

// closed finds doors that are open to other machines and ask nobody.
func (c *checker) closed(cfg *Config) {
	for _, d := range cfg.ports() {
		if err := cfg.MayOpen(d.key, d.address); err != nil {
			c.addf(d.key, "%v", err)
		}
	}
}

type port struct{ key, address string }

func (c *Config) ports() []port {
	return []port{{"listen.grpc", c.Listen.GRPC}, {"listen.http", c.Listen.HTTP}}
}

// MayOpen says why the door that is configured by key (listen.grpc or listen.http) may not be opened on an address; nil when it may. Who is given an
// open listener, by systemd, asks with the address that it has.
func (c *Config) MayOpen(key, address string) error {
	if c.Listen.Insecure || !reachable(address) || c.asks(key) {
		return nil
	}
	_, number, _ := net.SplitHostPort(address)
	return fmt.Errorf("%s is reached by other machines, and whoever comes would be let in; have it ask for tokens (access.tokens_file, made by `inferd token add`), or for client certificates (listen.tls.client_ca), or let it ask nobody with listen.insecure: true; 127.0.0.1:%s is reached from this machine only",
		shorten(address), number)
}

// asks reports whether who comes through the door must show a token or a certificate.
func (c *Config) asks(key string) bool {
	if c.Access.TokensFile != "" || c.Listen.TLS.ClientCA != "" {
		return true
	}
	return key == "listen.grpc" && c.Listen.TLS.verifies()
}

// reachable reports whether other machines may reach the address.
func reachable(address string) bool {
	host, number, err := net.SplitHostPort(address)
	if _, wrong := strconv.ParseUint(number, 10, 16); err != nil || wrong != nil || host == "localhost" { // what is no address opens no door
		return false
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback() // other names may be any address
}

// verifies reports whether TensorFlow Serving's file asks for certificates. One that cannot be read does not; that is found elsewhere.
func (t *TLS) verifies() bool {
	if t.SSLConfigFile == "" {
		return false
	}
	read, err := readSSLConfig(t.SSLConfigFile)
	return err == nil && read.ClientAuth != 0
}

// OpenWarning is one line for the log when a port that other machines reach is less closed than it might be, "" when none is.
func (c *Config) OpenWarning() string {
	var open, clear []string
	files, _ := c.Listen.TLS.Set()
	for _, d := range c.ports() {
		if !reachable(d.address) {
			continue
		}
		_, number, _ := net.SplitHostPort(d.address)
		switch {
		case !c.asks(d.key):
			open = append(open, "--"+d.key+"=127.0.0.1:"+number)
		case !files && (d.key != "listen.grpc" || c.Listen.TLS.SSLConfigFile == ""):
			clear = append(clear, d.key)
		}
	}
	switch {
	case len(open) > 0:
		return "every machine that reaches this one may use the ports without authentication; to close them add " + strings.Join(open, " ") + ", or have them ask for tokens: access.tokens_file"
	case len(clear) > 0:
		return "tokens cross the network unencrypted on " + strings.Join(clear, " and ") + ", where whoever listens can take them; set listen.tls, or put a proxy with TLS before it"
	}
	return ""
}
