// validate.go: what a whole configuration must fulfil, checked in one pass that names every fault.
package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Bounds that are not worth a key of their own.
const (
	maxThreads     = 4096
	maxVersions    = 1 << 16
	maxSocketPath  = 107       // sun_path less its end
	maxMessage     = 1<<31 - 1 // protobuf's own
	minMessage     = 1 << 10
	maxDrain       = time.Hour
	maxWait        = 7 * 24 * time.Hour
	minPoll        = 100 * time.Millisecond
	remotePathText = "is not on this machine's file system, and remote ones are not read; copy or mount the models and write their path"
)

// checker collects faults with their places.
type checker struct {
	*source
	faults Faults
}

func (c *checker) addf(key, format string, args ...any) {
	c.faults = append(c.faults, c.fault(key, format, args...))
}

// Validate returns every fault as [Faults], nil when there is none.
func (c *Config) Validate() error {
	v := &checker{source: c.source}
	v.listen(&c.Listen)
	v.dir("models_dir", c.ModelsDir)
	v.dir("state_dir", c.StateDir)
	if c.StateDir == "" {
		v.addf("state_dir", "is empty; write the directory where inferd may keep its state")
	}
	v.options("defaults", &c.Defaults)
	v.models(c.Models)
	v.runtime(&c.Runtime)
	v.memory(&c.Memory)
	v.queue(&c.Queue, c.Limits.MaxRequestBytes)
	v.requestLog(&c.RequestLog)
	v.stream(&c.Stream, c.Limits.MaxRequestBytes)
	v.duration("updater.settle_time", c.Updater.SettleTime, 0, maxWait)
	v.duration("updater.empty_grace", c.Updater.EmptyGrace, 0, maxWait)
	v.duration("updater.poll_interval", c.Updater.PollInterval, minPoll, maxWait)
	v.number("updater.keep_copy_limit", int64(c.Updater.KeepCopyLimit), 0, 1<<40)
	v.duration("updater.config_poll", c.Updater.ConfigPoll, 0, maxWait)
	if d := c.Updater.ConfigPoll; d > 0 && d < minPoll {
		v.addf("updater.config_poll", "%s is less than %s; write that or more, or 0s", formatDuration(d), formatDuration(minPoll))
	}
	v.oneOf("grpc.reload_config", string(c.GRPC.ReloadConfig), string(LocalCallers), string(AnyCallers), string(NoCallers))
	v.origins("rest.origins", c.REST.Origins)
	if c.REST.CORS && len(c.REST.Origins) > 0 {
		v.addf("rest.origins", "rest.cors lets pages of every origin in, so a list of some would say nothing; remove one of the two")
	}
	v.number("oip.stream_requests", int64(c.OIP.StreamRequests), 1, 4096)
	if n := len(c.OIP.ServerName); n == 0 || n > 64 || strings.ContainsFunc(c.OIP.ServerName, func(r rune) bool { return r <= ' ' || r > '~' }) {
		v.addf("oip.server_name", "%q is no name; write 1 to 64 printable characters of ASCII without spaces, such as inferd", c.OIP.ServerName)
	}
	v.oneOf("oip.repository", string(c.OIP.Repository), string(LocalCallers), string(AnyCallers), string(NoCallers))
	v.admission(&c.Admission)
	v.access(&c.Access)
	v.limits(&c.Limits)
	v.closed(c)
	v.monitoring(c.Monitoring.Paths)
	v.oneOf("log.format", c.Log.Format, FormatText, FormatJSON)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.duration("drain_timeout", c.DrainTimeout, 0, maxDrain)
	return v.faults.err()
}

func (c *checker) listen(l *Listen) {
	c.address("listen.grpc", l.GRPC)
	c.address("listen.http", l.HTTP)
	if _, port, err := net.SplitHostPort(l.GRPC); err == nil && l.GRPC == l.HTTP && port != "0" {
		c.addf("listen.http", "%s is the address of listen.grpc too; choose another port", l.HTTP)
	}
	c.socket("listen.grpc_socket", l.GRPCSocket)
	c.socket("listen.control", l.Control)
	c.tls(&l.TLS)
	if l.Control != "" && l.Control == l.GRPCSocket {
		c.addf("listen.control", "%s is the path of listen.grpc_socket too; choose another", l.Control)
	}
}

func (c *checker) address(key, s string) {
	if s == "" {
		return
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		c.addf(key, "%q is not an address; write host:port, for example 127.0.0.1:8500", shorten(s))
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		c.addf(key, "%q is not a port; write a number from 0 to 65535", shorten(port))
	}
	if strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || r == '/' }) {
		c.addf(key, "%q is not a host name or an IP address", shorten(host))
	}
}

func (c *checker) socket(key, path string) {
	if len(path) > maxSocketPath {
		c.addf(key, "the path has %d bytes, a unix socket's has at most %d", len(path), maxSocketPath)
	}
	c.dir(key, path)
}

func (c *checker) dir(key, path string) {
	switch {
	case strings.Contains(path, "://"):
		c.addf(key, "%q %s", shorten(path), remotePathText)
	case strings.ContainsRune(path, 0):
		c.addf(key, "%q holds a zero byte, which no path may", shorten(path))
	case path != "" && !filepath.IsAbs(path):
		c.addf(key, "%q is not an absolute path", shorten(path))
	}
}

func (c *checker) models(models []Model) {
	if len(models) > MaxModels {
		c.addf("models", "%d models, at most %d can be listed", len(models), MaxModels)
		return
	}
	seen := make(map[string]bool)
	for i := range models {
		m := &models[i]
		at := fmt.Sprintf("models[%d]", i)
		if fault := nameFault(m.Name); fault != "" {
			c.addf(at+".name", "%s", fault)
		} else if seen[m.Name] {
			c.addf(at+".name", "Illegal to list model %s multiple times in config list", m.Name)
		}
		seen[m.Name] = true
		if m.BasePath == "" {
			c.addf(at+".base_path", "is empty, and there is no models_dir that would hold model %q; write the directory with its version folders", shorten(m.Name))
		}
		c.dir(at+".base_path", m.BasePath)
		for _, label := range slices.Sorted(maps.Keys(m.VersionLabels)) {
			version, key := m.VersionLabels[label], join(at+".version_labels", label)
			if label == "" || strings.ContainsAny(label, "/:") {
				c.addf(key, "%q cannot be a label: it stands in a URL, so it is not empty and has no / and no :", shorten(label))
			}
			if version < 0 {
				c.addf(key, "version %d does not exist; versions are counted from 0", version)
			}
		}
		c.media(at+".media", m.Media)
		c.modelOptions(at, &m.ModelOptions)
	}
}

// modelOptions leaves out what the model has from a defaults section that was found wrong already.
func (c *checker) modelOptions(at string, o *ModelOptions) {
	own := &checker{source: c.source}
	own.options(at, o)
	for _, f := range own.faults {
		known := slices.ContainsFunc(c.faults, func(d Fault) bool {
			return d.Msg == f.Msg && strings.TrimPrefix(d.Key, "defaults") == strings.TrimPrefix(f.Key, at)
		})
		if !known {
			c.faults = append(c.faults, f)
		}
	}
}

// nameFault says why s cannot name a model: it stands in URLs before : and /, and may be the name of a folder.
func nameFault(s string) string {
	switch {
	case s == "":
		return "is empty; every model has a name"
	case len(s) > 255:
		return fmt.Sprintf("has %d bytes, at most 255 are possible", len(s))
	case s == "." || s == "..":
		return fmt.Sprintf("%q cannot name a model", s)
	case strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == ':' || unicode.IsControl(r) || r == unicode.ReplacementChar }):
		return fmt.Sprintf("%q cannot name a model: it stands in URLs, so it has no /, no : and no control characters", shorten(s))
	}
	return ""
}

func (c *checker) options(at string, o *ModelOptions) {
	c.policy(at+".version_policy", o.VersionPolicy)
	c.duration(at+".default_deadline", o.DefaultDeadline, time.Millisecond, maxWait)
	c.duration(at+".run_timeout", o.RunTimeout, time.Millisecond, maxWait)
	c.number(at+".retain", int64(o.Retain), 0, 1<<20)
	c.number(at+".intra_op_threads", int64(o.IntraOpThreads), 0, maxThreads)
	c.number(at+".inter_op_threads", int64(o.InterOpThreads), 0, maxThreads)
	c.number(at+".callers", int64(o.Callers), 0, maxThreads)
	c.optimize(at+".optimize", o.Optimize)
	for i, tag := range o.Tags {
		if tag == "" || slices.Contains(o.Tags[:i], tag) {
			c.addf(fmt.Sprintf("%s.tags[%d]", at, i), "%q is empty or given twice", shorten(tag))
		}
	}
	c.oneOf(at+".compatibility", string(o.Compatibility), string(Compatible), string(AnyVersion))
	c.oneOf(at+".nan", string(o.NaN), string(Refuse), string(Warn))
	for i, key := range o.SignatureKeys {
		if _, err := ParseKey(key); err != nil {
			c.addf(fmt.Sprintf("%s.signature_keys[%d]", at, i), "%v", err)
		}
	}
	if o.RequireSignature && len(o.SignatureKeys) == 0 {
		c.addf(at+".require_signature", "no version could ever be served, because signature_keys is empty; write the public keys that count")
	}
	for i, op := range o.AllowOps {
		if op == "" || slices.Contains(o.AllowOps[:i], op) || strings.ContainsFunc(op, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			c.addf(fmt.Sprintf("%s.allow_ops[%d]", at, i), "%q is no operation's name, or is given twice", shorten(op))
		}
	}
	c.ownMemory(at, o)
	c.modelQueue(at, &o.Queue)
	c.modelRequestLog(at+".request_log", &o.RequestLog)
	c.rollout(at, o)
	c.batching(at+".batching", &o.Batching)
}

func (c *checker) policy(at string, p VersionPolicy) {
	ways := 0
	for _, set := range []bool{p.Latest != 0, p.All, len(p.Specific) > 0} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		c.addf(at, "chooses versions in %d ways; write one of {latest: N}, {all: {}}, {specific: [1, 2]}", ways)
	}
	if p.Latest < 0 || p.Latest > maxVersions {
		c.addf(at+".latest", "%d is not between 1 and %d", p.Latest, maxVersions)
	}
	for i, n := range p.Specific {
		if n < 0 || slices.Contains(p.Specific[:i], n) {
			c.addf(fmt.Sprintf("%s.specific[%d]", at, i), "version %d is negative or given twice", n)
		}
	}
	if len(p.Specific) > maxVersions {
		c.addf(at+".specific", "%d versions, at most %d can be listed", len(p.Specific), maxVersions)
	}
}

func (c *checker) batching(at string, b *Batching) {
	c.number(at+".max_batch_size", b.MaxBatchSize, 0, math.MaxInt32)
	c.duration(at+".batch_timeout", b.BatchTimeout, 0, maxWait)
	c.duration(at+".latency_target", b.LatencyTarget, 0, maxWait)
	c.number(at+".max_enqueued_batches", b.MaxEnqueuedBatches, 0, math.MaxInt64)
	c.number(at+".num_batch_threads", int64(b.NumBatchThreads), 0, math.MaxInt32)
	c.number(at+".max_execution_batch_size", b.MaxExecutionBatchSize, 0, math.MaxInt32)
	c.oneOf(at+".large_batch_splitting", string(b.LargeBatchSplitting), string(On), string(Off), string(Auto))
	largest, what := b.MaxBatchSize, "max_batch_size"
	if b.MaxExecutionBatchSize > 0 {
		switch {
		case b.LargeBatchSplitting == Off:
			c.addf(at+".max_execution_batch_size", "has a meaning only when large requests are split; leave it out, or large_batch_splitting: false")
		case b.MaxBatchSize > 0 && b.MaxExecutionBatchSize > b.MaxBatchSize:
			c.addf(at+".max_execution_batch_size", "%d is more than max_batch_size, which is %d", b.MaxExecutionBatchSize, b.MaxBatchSize)
		default:
			largest, what = b.MaxExecutionBatchSize, "max_execution_batch_size"
		}
	}
	sizes := b.AllowedBatchSizes
	for i, n := range sizes {
		if n < 1 || i > 0 && n <= sizes[i-1] {
			c.addf(fmt.Sprintf("%s.allowed_batch_sizes[%d]", at, i), "%d does not continue an ascending list of sizes that begins at 1 or more", n)
			return
		}
	}
	if last := len(sizes) - 1; last >= 0 && largest > 0 && sizes[last] != largest {
		c.addf(at+".allowed_batch_sizes", "the last size is %d and must be %s, which is %d", sizes[last], what, largest)
	}
}

func (c *checker) runtime(r *Runtime) {
	c.dir("runtime.library", r.Library)
	c.oneOf("runtime.isolation", string(r.Isolation), string(IsolationVersion), string(IsolationDevice), string(IsolationNone), string(IsolationAuto))
	c.sandbox(r)
	if r.WorkerMemoryLimit != 0 && r.WorkerMemoryLimit < 16<<20 {
		c.addf("runtime.worker_memory_limit", "%v is less than any worker needs; write at least 16MiB, or 0 for no limit", r.WorkerMemoryLimit)
	}
	c.duration("runtime.canary_interval", r.CanaryInterval, 0, maxWait)
	if d := r.CanaryInterval; d > 0 && d < time.Second {
		c.addf("runtime.canary_interval", "%s is less than 1s; write that or more, or 0s for none", formatDuration(d))
	}
	if f := r.GPU.MemoryFraction; !(f >= 0 && f <= 1) {
		c.addf("runtime.gpu.memory_fraction", "%v is not between 0 and 1", f)
	}
	for part := range strings.SplitSeq(r.GPU.VisibleDevices, ",") {
		if _, err := strconv.ParseUint(strings.TrimSpace(part), 10, 16); err != nil && r.GPU.VisibleDevices != "" {
			c.addf("runtime.gpu.visible_devices", "%q is not a list of device numbers such as 0,2", shorten(r.GPU.VisibleDevices))
			break
		}
	}
}

// taken are the paths on the HTTP port that have another meaning.
var taken = []string{"/v1", "/v2", "/healthz", "/readyz"}

func (c *checker) monitoring(paths []string) {
	for i, p := range paths {
		at := fmt.Sprintf("monitoring.paths[%d]", i)
		switch {
		case !strings.HasPrefix(p, "/") || strings.ContainsAny(p, " ?#{}\t\n"):
			c.addf(at, "%q is not a path; write for example /metrics", shorten(p))
		case slices.Contains(paths[:i], p):
			c.addf(at, "%q is given twice", shorten(p))
		case slices.ContainsFunc(taken, func(t string) bool { return p == t || strings.HasPrefix(p, t+"/") }):
			c.addf(at, "%q has another meaning on this port; write for example /metrics", shorten(p))
		}
	}
}

func (c *checker) oneOf(key, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		c.addf(key, "%q is none of %s", shorten(s), strings.Join(allowed, ", "))
	}
}

func (c *checker) duration(key string, d, low, high time.Duration) {
	between(c, key, d, low, high, formatDuration)
}

func (c *checker) number(key string, n, low, high int64) {
	between(c, key, n, low, high, func(n int64) string { return strconv.FormatInt(n, 10) })
}

func between[T cmp.Ordered](c *checker, key string, x, low, high T, format func(T) string) {
	if x < low || x > high {
		c.addf(key, "%s is not between %s and %s", format(x), format(low), format(high))
	}
}
