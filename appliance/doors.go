// doors.go: what the doors ask of those who come, and how much of their time and memory they may take.
package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
)

const (
	accessLook = time.Second // how often it is looked whether the tokens file has changed
	httpIdle   = 2 * time.Minute

	// A peer that is gone without a word is found out by pings; one that pings more often itself is told to be calm, and cut off.
	pingEvery  = time.Minute
	pingAnswer = 20 * time.Second
	leastPings = 10 * time.Second
)

// newGuard reads the tokens. That they cannot be read keeps everybody out, and nothing else from working.
func (a *Appliance) newGuard() (err error) {
	c := &a.cfg.Access
	if a.opers, err = access.NewOperators(c.Operators); err != nil {
		return a.cfg.Fault("access.operators", "%v", err)
	}
	if c.TokensFile == "" {
		return nil
	}
	a.guard = access.New(access.Options{Path: c.TokensFile, Operators: a.opers, Log: a.log})
	a.tellAccess()
	return nil
}

// watchAccess has the tokens read again when their file has changed, until ctx ends.
func (a *Appliance) watchAccess(ctx context.Context) error {
	if a.guard == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(accessLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if a.guard.Refresh() {
				a.tellAccess()
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// tellAccess makes what is wrong with the tokens file a condition.
func (a *Appliance) tellAccess() {
	var conditions []health.Condition
	switch err := a.guard.Problem(); {
	case errors.Is(err, fs.ErrNotExist):
		conditions = []health.Condition{{Code: health.CodeAccess, Severity: health.Warning,
			Message: fmt.Sprintf("nobody is let in at the ports: there is no tokens file %s; make a token with `inferd token add NAME --scope predict`", a.cfg.Access.TokensFile)}}
	case err != nil:
		conditions = []health.Condition{{Code: health.CodeAccess, Severity: health.Warning,
			Message: fmt.Sprintf("the tokens file was refused, and the tokens before (none, if inferd has started since) stay in force: %v", err)}}
	}
	a.health.Replace([]string{health.CodeAccess}, conditions)
	a.news.tell()
}

// asks is what those who come to the ports must show, for the status.
func (a *Appliance) asks() (what []string) {
	if a.guard != nil {
		what = append(what, "tokens")
	}
	if a.cfg.Listen.TLS.ClientCA != "" {
		what = append(what, "client certificates")
	}
	return what
}

// forMetrics is h for those who may read metrics.
func (a *Appliance) forMetrics(h http.Handler) http.Handler {
	if a.guard == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant, err := a.guard.HTTP(r)
		if err == nil {
			err = grant.May(access.Metrics, "")
		}
		if err == nil {
			h.ServeHTTP(w, r)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "application/json")
		access.Explain(header, err, r.Header["Authorization"] != nil)
		w.WriteHeader(api.HTTPStatus(err))
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Msg}) // the client is gone when this fails
	})
}

// limited is a port's listener within the limits.
func limited(l net.Listener, limits *config.Limits) net.Listener {
	return access.Limit(l, access.Limits{Connections: limits.MaxConnections, PerAddress: limits.ClientConnections, Slow: limits.SlowTimeout})
}

// httpServer is an HTTP server within the limits.
func httpServer(h http.Handler, l *config.Limits) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: l.HeaderTimeout, ReadTimeout: l.BodyTimeout, IdleTimeout: httpIdle, MaxHeaderBytes: int(l.MaxHeaderBytes),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: l.MaxStreams, SendPingTimeout: pingEvery, PingTimeout: pingAnswer, WriteByteTimeout: l.SlowTimeout},
	}
}

// grpcDoor are the options of the gRPC server that are about its connections.
func (a *Appliance) grpcDoor(secure bool) []grpc.ServerOption {
	l := &a.cfg.Limits
	options := []grpc.ServerOption{
		grpc.ConnectionTimeout(l.HeaderTimeout), grpc.MaxHeaderListSize(uint32(l.MaxHeaderBytes)), grpc.MaxConcurrentStreams(uint32(l.MaxStreams)),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingAnswer}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPings, PermitWithoutStream: true}),
	}
	switch {
	case secure:
		options = append(options, grpc.Creds(onPorts{credentials.NewTLS(a.certs.server("h2")), insecure.NewCredentials()}))
	case a.guard != nil: // the peers of the socket are to be known
		options = append(options, grpc.Creds(onPorts{insecure.NewCredentials(), insecure.NewCredentials()}))
	}
	return options
}

// doorMetrics are the doors' numbers, read at each scrape.
type doorMetrics struct{ a *Appliance }

var (
	descDenied = prometheus.NewDesc("inferd_access_refused_total", "Requests that were not let in for want of a valid token, by reason.", []string{"reason"}, nil)
	descConns  = prometheus.NewDesc("inferd_connections", "Connections that are open, by port.", []string{"door"}, nil)
	descTurned = prometheus.NewDesc("inferd_connections_turned_away_total", "Connections that were closed at once, for their address had limits.client_connections, by port.", []string{"door"}, nil)
	descStuck  = prometheus.NewDesc("inferd_connections_slow_total", "Connections that were closed, for their clients did not take what was written, by port.", []string{"door"}, nil)
)

// Describe implements prometheus.Collector.
func (c *doorMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDenied, descConns, descTurned, descStuck} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *doorMetrics) Collect(out chan<- prometheus.Metric) {
	if c.a.guard != nil {
		for reason, n := range c.a.guard.Refused() {
			out <- prometheus.MustNewConstMetric(descDenied, prometheus.CounterValue, float64(n), reason)
		}
	}
	for _, d := range []struct {
		name string
		l    net.Listener
	}{{"grpc", c.a.doors.grpc}, {"http", c.a.doors.http}} {
		if watched, ok := d.l.(*door); ok {
			d.l = watched.Listener
		}
		l, ok := d.l.(*access.Listener)
		if !ok {
			continue
		}
		s := l.Stats()
		out <- prometheus.MustNewConstMetric(descConns, prometheus.GaugeValue, float64(s.Open), d.name)
		out <- prometheus.MustNewConstMetric(descTurned, prometheus.CounterValue, float64(s.Turned), d.name)
		out <- prometheus.MustNewConstMetric(descStuck, prometheus.CounterValue, float64(s.Slow), d.name)
	}
}
