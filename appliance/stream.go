// stream.go: the WebSocket's place among the parts, and its metrics.
package appliance

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/appliance/api/ws"
)

const streamPath = "/v1/stream"

// openStream makes the WebSocket's handler, over the queue that is open by now.
func (a *Appliance) openStream() {
	s := &a.cfg.Stream
	if !s.Enabled {
		return
	}
	body := int64(a.cfg.Limits.MaxRequestBytes)
	a.stream = ws.New(a.service, ws.Options{
		Codecs: map[api.Kind]api.Codec{
			api.JSON:  rest.NewCodec(rest.CodecOptions{MaxRequestBytes: body, StrictJSON: a.cfg.REST.StrictJSON, Compact: true}),
			api.Proto: rpc.NewCodec(rpc.CodecOptions{MaxRequestBytes: body, SerializeAsTensorContent: a.cfg.GRPC.TensorContent}),
			api.Media: rest.NewMediaCodec(rest.CodecOptions{MaxRequestBytes: body, Compact: true}),
			api.Raw:   ws.NewRawCodec(),
		},
		Access: a.guard, ReadSpec: rpc.ReadSpec, Jobs: a.jobs, Touch: s.SessionRetention / 6,
		Connections: s.MaxConnections, Credits: s.Credits, MaxFrame: min(int64(s.MaxFrame), body), Idle: s.IdleTimeout, Ping: s.Ping, Slow: s.SlowTimeout,
		Outbox: int(s.Outbox), Origins: s.Origins, Memory: a.memory.ledger, Draining: a.draining, Log: a.log,
	})
}

// streamMetrics are the handler's numbers, read at each scrape.
type streamMetrics struct{ a *Appliance }

var (
	descStreams  = prometheus.NewDesc("inferd_stream_connections", "WebSockets that are open.", nil, nil)
	descFlights  = prometheus.NewDesc("inferd_stream_requests_in_flight", "Requests of WebSockets without an answer.", nil, nil)
	descOutbox   = prometheus.NewDesc("inferd_stream_outbox_bytes", "Answers that wait to be read by the clients of WebSockets.", nil, nil)
	descOpened   = prometheus.NewDesc("inferd_stream_opened_total", "WebSockets that were opened.", nil, nil)
	descClosed   = prometheus.NewDesc("inferd_stream_closed_total", "WebSockets that have ended, by close code; 1006 without one.", []string{"code"}, nil)
	descDropped  = prometheus.NewDesc("inferd_stream_dropped_total", "Requests that gave way to newer ones of a live source.", nil, nil)
	descSlow     = prometheus.NewDesc("inferd_stream_slow_total", "Clients that were told that they read too slowly.", nil, nil)
	descBadFrame = prometheus.NewDesc("inferd_stream_bad_frames_total", "Frames that could not be read.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *streamMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descStreams, descFlights, descOutbox, descOpened, descClosed, descDropped, descSlow, descBadFrame} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *streamMetrics) Collect(out chan<- prometheus.Metric) {
	if c.a.stream == nil {
		return
	}
	s := c.a.stream.Stats()
	for _, g := range []struct {
		d *prometheus.Desc
		v int64
	}{{descStreams, int64(s.Connections)}, {descFlights, int64(s.InFlight)}, {descOutbox, s.OutboxBytes}} {
		out <- prometheus.MustNewConstMetric(g.d, prometheus.GaugeValue, float64(g.v))
	}
	for _, n := range []struct {
		d *prometheus.Desc
		v int64
	}{{descOpened, s.Opened}, {descDropped, s.Dropped}, {descSlow, s.Slow}, {descBadFrame, s.BadFrames}} {
		out <- prometheus.MustNewConstMetric(n.d, prometheus.CounterValue, float64(n.v))
	}
	for code, n := range s.Closed {
		out <- prometheus.MustNewConstMetric(descClosed, prometheus.CounterValue, float64(n), strconv.Itoa(code))
	}
}
