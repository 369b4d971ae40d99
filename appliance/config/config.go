// config.go: the tree of settings. The yaml tags are the keys, the doc tags are the reference that users read.
package config

import (
	"time"

	for_core_protos "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
)

// Limits on what is read from outside.
const (
	MaxFileBytes = 1 << 20 // of a configuration file of any kind
	MaxModels    = 4096    // listed in one configuration
)

// DefaultFile is where the packaged service keeps its configuration.
const DefaultFile = "/etc/inferd/inferd.yaml"

// Config is everything that can be set.
type Config struct {
	Listen       Listen        `yaml:"listen" doc:"Where requests arrive."`
	ModelsDir    string        `yaml:"models_dir" doc:"Every folder in this directory is a model of the folder's name, and every numeric folder in that is a version. Empty: only the models listed below are served."`
	StateDir     string        `yaml:"state_dir" doc:"Where inferd keeps what must survive a restart."`
	Defaults     ModelOptions  `yaml:"defaults" doc:"Settings of every model that does not set them itself, whether it is listed below or found in models_dir."`
	Models       []Model       `yaml:"models" doc:"Models that lie elsewhere than in models_dir, or that need settings of their own."`
	Runtime      Runtime       `yaml:"runtime" doc:"TensorFlow and the worker processes that run it."`
	Updater      Updater       `yaml:"updater" doc:"How changes in the model directories are noticed."`
	Memory       Memory        `yaml:"memory" doc:"What inferd and its workers may take of the memory, and what is done when that is short."`
	State        State         `yaml:"state" doc:"What is kept in state_dir."`
	Queue        Queue         `yaml:"queue" doc:"Jobs: requests that are kept in state_dir/queue.db until they are answered, whatever ends meanwhile."`
	RequestLog   RequestLog    `yaml:"request_log" doc:"Bounds of what is logged of requests; which ones are is a model's request_log. docs/request-log.md has how."`
	Admission    Admission     `yaml:"admission" doc:"Who is let in before the body is read. Beside it every model lets in what can be answered in time; docs/admission.md has how."`
	Access       Access        `yaml:"access" doc:"Who may use the ports; docs/security.md has the policy."`
	Limits       Limits        `yaml:"limits" doc:"What is refused before it is read into memory."`
	REST         REST          `yaml:"rest" doc:"The HTTP and JSON interface."`
	GRPC         GRPC          `yaml:"grpc" doc:"The gRPC interface."`
	OIP          OIP           `yaml:"oip" doc:"The Open Inference Protocol (KServe's and Triton's v2), on both ports."`
	Stream       Stream        `yaml:"stream" doc:"The WebSocket: many predictions over one connection, live and durable."`
	Monitoring   Monitoring    `yaml:"monitoring" doc:"Metrics for Prometheus, on the HTTP address."`
	Log          Log           `yaml:"log" doc:"The log, on standard error."`
	DrainTimeout time.Duration `yaml:"drain_timeout" doc:"How long requests in flight may take to finish when the service is told to stop."`

	source *source // where each value came from; nil for a Config that was not read
}

// Listen has the addresses.
type Listen struct {
	GRPC       string `yaml:"grpc" doc:"host:port for gRPC. Empty: off. An empty host means every interface."`
	HTTP       string `yaml:"http" doc:"host:port for REST, metrics and health. Empty: off."`
	GRPCSocket string `yaml:"grpc_socket" doc:"Path of a unix socket for gRPC, beside the port. Empty: off."`
	Control    string `yaml:"control" doc:"Path of the unix socket for operator verbs. Empty: /run/inferd/control.sock where that can be written, else inferd/control.sock under XDG_RUNTIME_DIR, else control.sock in state_dir, else, where that cannot be written or its path is too long for a socket, inferd-UID/control.sock in the directory for temporary files."`
	TLS        TLS    `yaml:"tls" doc:"TLS of the HTTP and the gRPC port. The unix sockets go without it."`
	Insecure   bool   `yaml:"insecure" doc:"Serve on addresses that other machines reach although neither access.tokens_file nor a client certificate (listen.tls.client_ca) is asked for. Off: such an address is refused."`
}

// Model is one listed model.
type Model struct {
	Name     string `yaml:"name" doc:"The name that clients use. Required."`
	BasePath string `yaml:"base_path" doc:"The directory with the numeric version folders. Empty: the folder of the model's name in models_dir."`
	Optional bool   `yaml:"optional" doc:"The service is ready even when no version of this model works."`

	VersionLabels map[string]int64 `yaml:"version_labels" doc:"Names for versions that clients may use in place of numbers: {stable: 3, canary: 4}."`
	Signatures    Signatures       `yaml:"signatures" doc:"Assertions: a version whose real signatures differ in name, type or shape is refused. By signature: method, inputs and outputs, each by name with dtype and shape."`
	Media         MediaInputs      `yaml:"media" doc:"Inputs, by name, that take pictures or sound as they are: how a JPEG, PNG or WAV file, or samples, become the input's numbers; see below and docs/media.md. An input that a version does not have, or that does not fit, takes no files in that version, and its status says why."`

	ModelOptions `yaml:",inline"`
}

// ModelOptions are the settings that the defaults section and a listed model share.
type ModelOptions struct {
	VersionPolicy    VersionPolicy `yaml:"version_policy" doc:"Which versions are served: {latest: N}, {all: {}} or {specific: [1, 2]}."`
	DefaultDeadline  time.Duration `yaml:"default_deadline" doc:"Deadline of a request that brings none."`
	RunTimeout       time.Duration `yaml:"run_timeout" doc:"A run of the graph that takes longer ends its worker, which is replaced: TensorFlow cannot be interrupted."`
	StrictShapes     bool          `yaml:"strict_shapes" doc:"Refuse an input whose shape disagrees with the signature. Off: such a request runs alone and the graph decides, as in TensorFlow Serving."`
	Tags             []string      `yaml:"tags" doc:"Tags of the graph to load out of the SavedModel."`
	IntraOpThreads   int           `yaml:"intra_op_threads" doc:"Threads inside one operation. 0: chosen for the machine."`
	InterOpThreads   int           `yaml:"inter_op_threads" doc:"Threads across operations. 0: the graph runs in the calling thread."`
	Callers          int           `yaml:"callers" doc:"Runs of the graph at the same time. 0: one for each core."`
	Optimize         Optimize      `yaml:"optimize" doc:"What inferd may change in how TensorFlow is called for a version, where it has measured that this gains and gives the same answers: auto (everything), off, or a list of freeze (variables become constants), executor (TensorFlow's executor for one thread), onednn (the other setting than this CPU's default), threads (callers, threads inside an operation, TensorFlow's own pool; never a number that is set here) and bfloat16 (only where golden cases say what may differ). It is measured when a version is first loaded, and remembered; docs/tuning.md has how."`
	DenyOps          bool          `yaml:"deny_ops" doc:"Refuse a version whose graph has operations that, when it is loaded or run, touch files, the network or code outside the graph (ReadFile, WriteFile, PyFunc, a Save outside the saver and the like; \"inferd check\" names them)."`
	AllowOps         []string      `yaml:"allow_ops" doc:"Operations that deny_ops lets pass, by name."`
	SignatureKeys    []string      `yaml:"signature_keys" doc:"Public keys, as \"inferd keygen\" prints them, whose signature over a version's MANIFEST (MANIFEST.sig, written by \"inferd sign\") counts. What one of them has signed may have operations that deny_ops refuses; a signature of anybody else is refused."`
	RequireSignature bool          `yaml:"require_signature" doc:"Refuse a version that none of signature_keys has signed."`
	Compatibility    Compatibility `yaml:"compatibility" doc:"compatible: a version with a higher number than the one that serves is refused when a request that is answered now would fail: an input, output or signature is gone, has another type, or takes fewer shapes. any: whatever loads and runs may serve, as in TensorFlow Serving."`
	Retain           int           `yaml:"retain" doc:"Remove the folders of old versions behind the so many newest good ones. Never removed is what serves, the last good version before it, what is pinned, labelled or wanted by version_policy, and what was never tried. 0: none is removed, and the status warns when old versions fill the disk."`
	KeepLastGood     bool          `yaml:"keep_last_good" doc:"Keep the files of the version that serves, and of the good one before it, a second time under state_dir, so that a restart and a rollback work after their folders were overwritten or removed. Where the file system can share bytes this costs nothing, else see updater.keep_copy_limit."`
	NaN              NaN           `yaml:"nan" doc:"What follows from NaN or infinity in the answer to a recorded request (assets.extra/tf_serving_warmup_requests) that is replayed before a version serves, or in an output of which a golden case (assets.extra/inferd_golden.jsonl) expects nothing: refuse (the version) or warn. On made-up requests it is a warning in any case."`
	Rollout          Rollout       `yaml:"rollout" doc:"How a new version comes to answer the requests that name no version."`
	Probation        Probation     `yaml:"probation" doc:"How long a new version is watched after it took over from another one (or, as a canary, at each step), and by how much it may be worse. It gives way by itself, and stays refused, when it is worse; the one before stays loaded meanwhile where memory allows. What no comparison can show beyond doubt, for want of requests, is no breach."`
	Transition       Transition    `yaml:"transition" doc:"What is done with the version that serves while a new one is loaded, for which memory may not suffice: auto (both, where they fit; else the old one is unloaded first, where the new one fits only without it), availability_preserving (both, or the new one waits), resource_preserving (the old one is always unloaded first; nothing of the model serves for so long), beside (both, whatever memory there is). What fits is told from cgroups, the machine, runtime.worker_memory_limit, and what the serving version takes."`
	MemoryLimit      Bytes         `yaml:"memory_limit" doc:"A worker of this model that uses more memory is ended and replaced. 0: runtime.worker_memory_limit."`
	KeepAlive        time.Duration `yaml:"keep_alive" doc:"A live version without a request for so long is parked: its worker ends, and is started again by the next request. 0s: never for that alone."`
	Pinned           bool          `yaml:"pinned" doc:"Never park the model's versions, whatever memory others need."`
	Queue            ModelQueue    `yaml:"queue" doc:"Bounds of the model's jobs, beside those of all."`
	RequestLog       ModelLog      `yaml:"request_log" doc:"Which requests of the model are logged under state_dir/requests."`
	Batching         Batching      `yaml:"batching" doc:"Joining requests that wait into one run. The keys mean what they mean in TensorFlow Serving."`
}

// VersionPolicy chooses versions. Exactly one field is set.
type VersionPolicy struct {
	Latest   int     // the so many highest
	All      bool    // every one
	Specific []int64 // these, ascending
}

// Batching is how requests are joined.
type Batching struct {
	Enabled                 bool          `yaml:"enabled" doc:"Join requests. Off: every request is a run of its own."`
	MaxBatchSize            int64         `yaml:"max_batch_size" doc:"Rows in a batch at most. 0: the last of allowed_batch_sizes, else as many as were proven when the version was tried."`
	BatchTimeout            time.Duration `yaml:"batch_timeout" doc:"How long a batch that is not full waits for more (batch_timeout_micros). 0s: it leaves as soon as it can run."`
	LatencyTarget           time.Duration `yaml:"latency_target" doc:"Runs are kept so small that a request which comes while one is in flight, and leaves with the next, is answered in this time, as far as runs have been measured. 0s: a run is as large as gives most rows a second; docs/tuning.md has how."`
	MaxEnqueuedBatches      int64         `yaml:"max_enqueued_batches" doc:"Full batches that may wait for one signature; past it requests are refused with UNAVAILABLE. 0: bounded by memory alone."`
	NumBatchThreads         int           `yaml:"num_batch_threads" doc:"Batches that run at the same time. 0: as many as callers."`
	AllowedBatchSizes       []int64       `yaml:"allowed_batch_sizes" doc:"Batches are padded up to one of these sizes. Ascending; the last is max_batch_size, or max_execution_batch_size when large requests are split. Empty: any size, no padding."`
	PadVariableLengthInputs bool          `yaml:"pad_variable_length_inputs" doc:"Pad inputs of different lengths so that they may share a batch."`
	LargeBatchSplitting     Switch        `yaml:"large_batch_splitting" doc:"Split a request with more rows than a batch may have into several runs (enable_large_batch_splitting): true, false (such a request is refused) or auto, which splits."`
	MaxExecutionBatchSize   int64         `yaml:"max_execution_batch_size" doc:"Rows in one run when large requests are split. 0: max_batch_size."`
}

// Compatibility says what a new version must have in common with the one that serves.
type Compatibility string

// The kinds of compatibility.
const (
	Compatible Compatibility = "compatible"
	AnyVersion Compatibility = "any"
)

// NaN says what follows from numbers that are none.
type NaN string

// The consequences of NaN.
const (
	Refuse NaN = "refuse"
	Warn   NaN = "warn"
)

// Switch is on, off, or left to the part that reads it.
type Switch string

// The positions of a Switch.
const (
	Auto Switch = "auto"
	On   Switch = "true"
	Off  Switch = "false"
)

// Bool is nil for Auto.
func (s Switch) Bool() *bool {
	on := s == On
	if s != On && s != Off {
		return nil
	}
	return &on
}

// Isolation says what a worker process holds.
type Isolation string

// The kinds of isolation.
const (
	IsolationAuto    Isolation = "auto"    // device on a GPU, else version
	IsolationVersion Isolation = "version" // one worker per loaded version
	IsolationDevice  Isolation = "device"  // one worker per device
	IsolationNone    Isolation = "none"    // in the core process, for debugging
)

// Runtime is about TensorFlow.
type Runtime struct {
	Library           string    `yaml:"library" doc:"libtensorflow_cc.so.2 or the directory that holds it. Empty: INFERD_RUNTIME, else the runtime that \"inferd runtime use\" chose, or the highest version, of those that lie side by side in state_dir/runtimes and /usr/lib/inferd/runtime, else /var/lib/inferd/runtime, beside the binary, the system loader, in this order."`
	Isolation         Isolation `yaml:"isolation" doc:"What a worker process holds: version (one loaded version), device (everything on one device), none (no workers, for debugging), auto (device on a GPU, else version)."`
	Zygote            bool      `yaml:"zygote" doc:"Fork workers from a process that has opened TensorFlow already. Off: every worker starts afresh."`
	Sandbox           Sandbox   `yaml:"sandbox" doc:"What a model may do beside computing: auto (read its own version folder, the runtime and what describes the machine; no other files, no network, no programs, no other processes; as far as the kernel can), off (whatever inferd may, for debugging). docs/sandbox.md has the whole."`
	RequireSandbox    bool      `yaml:"require_sandbox" doc:"Load no model where the kernel cannot confine it (Landlock, Linux 5.13 or newer, and seccomp). Off: inferd says so and loads it."`
	WorkerMemoryLimit Bytes     `yaml:"worker_memory_limit" doc:"A worker that uses more memory is ended and replaced. 0: no limit of its own."`
	GPU               GPU       `yaml:"gpu" doc:"Graphics processors."`

	CanaryInterval time.Duration `yaml:"canary_interval" doc:"A loaded version whose worker has made no run for so long is asked with a made-up one, so that a worker that hangs is found, and replaced after run_timeout, before a request meets it. Less often where such runs would take more than a thousandth of a processor; never one that is parked, nor while anything loads or memory is short. 0s: off."`
}

// GPU is TensorFlow's GPUOptions.
type GPU struct {
	MemoryFraction float64 `yaml:"memory_fraction" doc:"Share of a device's memory that one worker may take, between 0 and 1. 0: what is free when it starts, or half of that where every version has a process of its own."`
	AllowGrowth    bool    `yaml:"allow_growth" doc:"Take device memory as it is needed."`
	VisibleDevices string  `yaml:"visible_devices" doc:"Devices to choose from, as in \"0,2\", numbered as nvidia-smi does. Empty: all that say how much memory they have."`
}

// Updater is about noticing changes.
type Updater struct {
	Watch        bool          `yaml:"watch" doc:"Let the kernel tell about changes. Off: only polling."`
	PollInterval time.Duration `yaml:"poll_interval" doc:"How often the directories are looked at in any case."`
	SettleTime   time.Duration `yaml:"settle_time" doc:"A version is loaded when its files have not changed for so long."`
	EmptyGrace   time.Duration `yaml:"empty_grace" doc:"A base path that turns up empty unloads nothing until it has been empty that long, and a model's folder that is gone from models_dir takes its model away only then: it may be a mount that comes back. A configured base path that is missing unloads nothing, ever. 0: at once."`
	ConfigPoll   time.Duration `yaml:"config_poll" doc:"How often the configuration file itself and its conf.d (TensorFlow Serving's model_config_file with its command line) are looked at; when they have changed they are read again as by SIGHUP. 0s: at SIGHUP and inferd reload only."`

	KeepCopyLimit Bytes `yaml:"keep_copy_limit" doc:"A version of up to this size is copied for keep_last_good, while a twentieth of the disk stays free. A larger one is hard linked, which survives that its folder is removed or its files are replaced, but not that they are written in place; across file systems it is not kept."`
}

// Limits are about size and number.
type Limits struct {
	MaxRequestBytes   Bytes `yaml:"max_request_bytes" doc:"Largest request body or message, and largest body after decompression."`
	MaxHeaderBytes    Bytes `yaml:"max_header_bytes" doc:"Largest header of a request, its metadata over gRPC."`
	MaxConnections    int   `yaml:"max_connections" doc:"Connections on each port; past it new ones wait. 0: no limit."`
	ClientConnections int   `yaml:"client_connections" doc:"Connections of one address (of IPv6 a /64 network) on each port; past it new ones are closed at once. 0: no limit of its own, as behind a proxy, where all come from one."`
	MaxStreams        int   `yaml:"max_streams" doc:"Calls that one HTTP/2 connection may have open at once, gRPC's or others; more wait in a client that keeps to the protocol."`

	HeaderTimeout time.Duration `yaml:"header_timeout" doc:"How long a new connection may take until the header of its first request is there, the handshake of TLS included, and each further one from its first byte on."`
	BodyTimeout   time.Duration `yaml:"body_timeout" doc:"How long a request may take to arrive, header and body. Over gRPC a deadline that is shorter counts."`
	SlowTimeout   time.Duration `yaml:"slow_timeout" doc:"A connection whose client takes nothing of its answer (less than 64 KiB of a longer one) for so long is closed. Streams have stream.slow_timeout."`
}

// REST is about HTTP and JSON.
type REST struct {
	StrictJSON bool `yaml:"strict_json" doc:"Refuse to answer with NaN and infinities, which are not JSON. Off: they are printed bare, as TensorFlow Serving does."`
	CORS       bool `yaml:"cors" doc:"Let web pages of any origin call the HTTP port, which answers them under /v1 as TensorFlow Serving does with --rest_api_enable_cors_support."`

	Origins []string `yaml:"origins" doc:"Origins whose web pages may call the HTTP port, grpc-web included, as in https://example.com; \"null\" is a page opened from a file, \"*\" is every one. Requests of other pages, but for this server's own, are refused. Empty: browsers keep answers from pages of other origins, and grpc-web is refused to them. Streams have stream.origins."`
}

// GRPC is about gRPC.
type GRPC struct {
	TensorContent  bool    `yaml:"tensor_content" doc:"Answer Predict with tensor_content, which is smaller and faster, in place of typed value fields."`
	ReloadConfig   Callers `yaml:"reload_config" doc:"Whose HandleReloadConfigRequest, which replaces the list of models until the configuration is read again, is answered: local (callers on this machine), any (every caller, as in TensorFlow Serving) or off."`
	ReloadAnyLabel bool    `yaml:"reload_any_label" doc:"HandleReloadConfigRequest may give labels to versions that are not available (allow_version_labels_for_unavailable_models). Off: such a request is refused."`
}

// OIP is about the Open Inference Protocol.
type OIP struct {
	ServerName     string  `yaml:"server_name" doc:"The name that the server's metadata tells. Some programs that were written for Triton go on only where it is triton; nothing else depends on it."`
	Repository     Callers `yaml:"repository" doc:"Whose requests to load and unload a model are granted where no tokens are asked for (access.tokens_file): local (callers on this machine), any (every caller, as in Triton) or off. Where they are asked for, everyone's whose token has the scope admin, unless off."`
	StreamRequests int     `yaml:"stream_requests" doc:"Requests of one ModelStreamInfer that may be without an answer. What a client sends beyond that waits unread."`
}

// Callers says from where a call is answered.
type Callers string

// The kinds of callers.
const (
	LocalCallers Callers = "local"
	AnyCallers   Callers = "any"
	NoCallers    Callers = "off"
)

// Monitoring is about metrics.
type Monitoring struct {
	Paths []string `yaml:"paths" doc:"Paths of the metrics page. An empty list: none."`
}

// Log formats.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Log is about log lines.
type Log struct {
	Format string `yaml:"format" doc:"text or json."`
	Level  string `yaml:"level" doc:"debug, info, warn or error."`
}

// Signatures are assertions by signature key. What is left out of a SignatureDef is not asserted: the method name, and in a TensorInfo
// the type, the shape (a message without dimensions asserts a scalar) and the graph's own name of the tensor.
type Signatures map[string]*for_core_protos.SignatureDef
