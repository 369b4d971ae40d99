// stream.go: the settings of the WebSocket at /v1/stream, and what they must fulfil.
package config

import (
	"net/url"
	"strconv"
	"time"
)

// Stream is about the WebSocket.
type Stream struct {
	Enabled          bool          `yaml:"enabled" doc:"Answer WebSockets at /v1/stream, on the HTTP address. docs/streaming.md has what is spoken there."`
	MaxConnections   int           `yaml:"max_connections" doc:"Streams that may be open at once; past it a new one is refused with 503. An idle one takes some 20 KB."`
	Credits          int           `yaml:"credits" doc:"Requests of one stream that may be without an answer. A client that sends more is closed."`
	MaxFrame         Bytes         `yaml:"max_frame" doc:"The largest message of a client. At most limits.max_request_bytes."`
	IdleTimeout      time.Duration `yaml:"idle_timeout" doc:"A stream of whose client nothing was heard for so long, not even the answer to a ping, is closed."`
	Ping             time.Duration `yaml:"ping" doc:"After so long without a word a client is sent a ping. Less than idle_timeout."`
	SlowTimeout      time.Duration `yaml:"slow_timeout" doc:"A client that reads nothing of what waits for it is told after half of this time, and closed after all of it. Its durable answers stay in the queue."`
	Outbox           Bytes         `yaml:"outbox" doc:"Bytes of answers that may wait to be read by one client; past it its requests wait too."`
	Origins          []string      `yaml:"origins" doc:"Origins whose web pages may connect, as in https://example.com, beside this server's own; \"null\" is a page opened from a file, \"*\" is every one. Clients that are no browsers send none and need none."`
	Page             bool          `yaml:"page" doc:"Serve a page at /stream with which a browser streams its camera, its microphone or a melody to a model."`
	SessionRetention time.Duration `yaml:"session_retention" doc:"How long after its client was last there a session, with which durable answers are fetched, can be resumed. The answers can be read by their jobs' ids for as long as any other."`
}

func defaultStream() Stream {
	return Stream{Enabled: true, MaxConnections: 1024, Credits: 64, MaxFrame: 8 << 20, IdleTimeout: time.Minute, Ping: 20 * time.Second, SlowTimeout: 10 * time.Second,
		Outbox: 4 << 20, SessionRetention: time.Hour}
}

func (c *checker) stream(s *Stream, maxBody Bytes) {
	c.number("stream.max_connections", int64(s.MaxConnections), 1, 1<<20)
	c.number("stream.credits", int64(s.Credits), 1, 4096)
	c.number("stream.max_frame", int64(s.MaxFrame), minMessage, maxMessage)
	if s.MaxFrame > maxBody && s.MaxFrame != defaultStream().MaxFrame {
		c.addf("stream.max_frame", "%v is more than a request may have, which is limits.max_request_bytes, %v; write less, or raise that", s.MaxFrame, maxBody)
	}
	c.number("stream.outbox", int64(s.Outbox), 64<<10, maxMessage)
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{"stream.idle_timeout", s.IdleTimeout}, {"stream.ping", s.Ping}, {"stream.slow_timeout", s.SlowTimeout}} {
		c.duration(d.key, d.d, 100*time.Millisecond, maxWait)
	}
	if s.Ping >= s.IdleTimeout {
		c.addf("stream.ping", "%s is not less than stream.idle_timeout, which is %s: a client would be closed before it could answer", formatDuration(s.Ping), formatDuration(s.IdleTimeout))
	}
	c.duration("stream.session_retention", s.SessionRetention, time.Minute, maxAge)
	c.origins("stream.origins", s.Origins)
}

func (c *checker) origins(key string, list []string) {
	for i, o := range list {
		if u, err := url.Parse(o); o != "*" && o != "null" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "") {
			c.addf(key+"["+strconv.Itoa(i)+"]", "%q is no origin; write scheme and host, as in https://example.com, or null (a page opened from a file), or *", o)
		}
	}
}
