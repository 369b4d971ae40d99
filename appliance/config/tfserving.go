// tfserving.go: tensorflow_model_server's command line into a Config.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
)

// Ignored is something that TensorFlow Serving would have heeded and that changes nothing here. It is logged by name.
type Ignored struct {
	Name   string // "--num_load_threads", "models.config: logging_config of model resnet"
	Reason string
}

// What a command line may ask for in place of serving.
var (
	ErrVersion = errors.New("version asked for") // print the version
	ErrHelp    = errors.New("help asked for")    // print ServingUsage
)

// ServingUsage lists the flags of tensorflow_model_server and what each means here.
func ServingUsage() string {
	var b strings.Builder
	b.WriteString("TensorFlow Serving's flags, written --flag=value; the flags of inferd serve may be mixed in and win.\n")
	for _, f := range servingFlags {
		fmt.Fprintf(&b, "  --%s (%s)\n        %s\n", f.name, f.kind, f.doc())
	}
	return b.String()
}

// StartError is a command line that is understood but that no server starts with. It means exit code 1; a [Faults] means 2.
type StartError struct{ Err *inference.Error }

// Error is the line that TensorFlow Serving prints.
func (e *StartError) Error() string { return "Failed to start server. Error: " + e.Err.Error() }

// Unwrap is the status.
func (e *StartError) Unwrap() error { return e.Err }

func startErrorf(format string, args ...any) error {
	return &StartError{inference.Errorf(inference.InvalidArgument, inference.ReasonInput, format, args...)}
}

// ParseTFServing reads the arguments of tensorflow_model_server (without the program's name) and the files that they name. The error
// is [ErrVersion], [ErrHelp], a [Faults] for wrong usage or a wrong file, or a [*StartError] with TensorFlow Serving's text where it has one.
func ParseTFServing(args []string) (*Config, []Ignored, error) {
	if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		return nil, nil, ErrHelp
	}
	s := &serving{own: new(Flags)}
	var faults Faults
	s.values, faults = parseServingFlags(args, s.own)
	if err := faults.err(); err != nil {
		return nil, nil, err
	}
	if s.values.bool("version") {
		return nil, nil, ErrVersion
	}
	c, err := s.config()
	if err != nil {
		return nil, s.ignored, err
	}
	return c, s.ignored, nil
}

// serving is one command line on its way to a Config.
type serving struct {
	values  servingValues
	own     *Flags
	ignored []Ignored
}

func (s *serving) ignore(name, format string, args ...any) {
	s.ignored = append(s.ignored, Ignored{Name: name, Reason: fmt.Sprintf(format, args...)})
}

func (s *serving) config() (*Config, error) {
	if err := s.refuse(); err != nil {
		return nil, err
	}
	for _, f := range servingFlags {
		if _, given := s.values[f.name]; given && f.ignored != "" {
			s.ignore("--"+f.name, "%s", f.ignored)
		}
	}
	c := Default()
	c.Defaults.Probation.Time, c.Defaults.Transition = 0, TransitionBeside // as it does
	c.Defaults.Compatibility, c.Defaults.NaN = AnyVersion, Warn            // whoever comes from TensorFlow Serving has versions that it would have served
	c.ModelsDir = ""
	c.source = &source{lines: make(map[string]int), flags: make(map[string]string)}
	s.listen(c)
	s.settings(c)
	for _, step := range []func(*Config) error{s.session, s.batching, s.monitoring} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	// Ours win, and what they say about defaults reaches every model.
	d := &decoder{source: *c.source, faults: s.own.apply(c, c.source.flags)}
	faults, err := s.models(c)
	if err != nil {
		return nil, err
	}
	d.faults = append(d.faults, faults...)
	c.resolve()
	return c, d.finish(c)
}

// refuse has TensorFlow Serving's own checks in its order.
func (s *serving) refuse() error {
	v := s.values
	alts, ssl := v.bool("use_alts_credentials"), v.string("ssl_config_file") != ""
	switch {
	case v.int("port") == 0 && v.string("grpc_socket_path") == "":
		return startErrorf("At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.")
	case alts && ssl:
		return startErrorf("Either use_alts_credentials must be false or ssl_config_file must be empty.")
	case v.string("model_base_path") == "" && v.string("model_config_file") == "":
		return startErrorf("Both server_options.model_base_path and server_options.model_config_file are empty!")
	case v.string("platform_config_file") == "" && !v.bool("enable_batching") && v.string("batching_parameters_file") != "":
		return startErrorf("server_options.batching_parameters_file is set without setting server_options.enable_batching to true.")
	case alts:
		return startErrorf("--use_alts_credentials: %s.", lookupServing("use_alts_credentials").refused)
	case v.int("tensorflow_session_parallelism") != 0 && v.int("tensorflow_intra_op_parallelism") != 0 && v.int("tensorflow_inter_op_parallelism") != 0:
		return startErrorf("--tensorflow_session_parallelism sets what --tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism set; leave it out.")
	}
	return nil
}

func (s *serving) listen(c *Config) {
	c.Listen = Listen{Insecure: true, GRPCSocket: s.values.string("grpc_socket_path"), TLS: TLS{SSLConfigFile: s.values.string("ssl_config_file")}}
	port, rest := s.values.int("port"), s.values.int("rest_api_port")
	if port != 0 {
		c.Listen.GRPC = ":" + strconv.FormatInt(port, 10)
	}
	switch rest {
	case 0:
	case port:
		s.ignore("--rest_api_port", "server_options.http_port cannot be same as grpc_port; REST is off, choose a different port for it")
	default:
		c.Listen.HTTP = ":" + strconv.FormatInt(rest, 10)
	}
	from := c.source.flags
	from["listen.grpc"], from["listen.http"], from["listen.grpc_socket"] = "port", "rest_api_port", "grpc_socket_path"
	from["listen.tls.ssl_config_file"] = "ssl_config_file"
}

func (s *serving) settings(c *Config) {
	v, d := s.values, &c.Defaults
	d.DefaultDeadline = time.Duration(v.int("rest_api_timeout_in_ms")) * time.Millisecond
	if d.DefaultDeadline <= 0 {
		d.DefaultDeadline = 24 * time.Hour // theirs waits for ever
	}
	d.DefaultDeadline = min(d.DefaultDeadline, maxWait)
	d.RunTimeout = max(d.RunTimeout, d.DefaultDeadline)
	d.Tags = strings.FieldsFunc(v.string("saved_model_tags"), func(r rune) bool { return r == ',' })
	c.REST.CORS = v.bool("rest_api_enable_cors_support")
	c.GRPC.TensorContent = v.bool("enable_serialization_as_tensor_content")
	if n := v.int("file_system_poll_wait_seconds"); n > 0 {
		c.Updater.PollInterval = min(time.Duration(n)*time.Second, maxWait)
	} else {
		s.ignore("--file_system_poll_wait_seconds", "%d would never look again, and changes are always noticed here", n)
	}
	if n := v.int("model_config_file_poll_wait_seconds"); n > 0 {
		c.Updater.ConfigPoll = min(time.Duration(n)*time.Second, maxWait)
	}
	c.GRPC.ReloadConfig, c.GRPC.ReloadAnyLabel = AnyCallers, v.bool("allow_version_labels_for_unavailable_models")
	from := c.source.flags
	from["updater.config_poll"], from["grpc.reload_any_label"] = "model_config_file_poll_wait_seconds", "allow_version_labels_for_unavailable_models"
	from["defaults.default_deadline"], from["defaults.run_timeout"] = "rest_api_timeout_in_ms", "rest_api_timeout_in_ms"
	from["defaults.tags"], from["updater.poll_interval"] = "saved_model_tags", "file_system_poll_wait_seconds"
}

// session takes threads and GPU options, first from the file, then from the flags.
func (s *serving) session(c *Config) error {
	v := s.values
	if path := v.string("tensorflow_session_config_file"); path != "" {
		data, err := readServingFile(path)
		if err != nil {
			return err
		}
		ignored, err := parseSession(path, data, c)
		if err != nil {
			return err
		}
		s.ignored = append(s.ignored, ignored...)
	}
	set := func(key string, p *int, flags ...string) {
		for _, flag := range flags {
			if n := v.int(flag); n != 0 {
				*p = int(max(0, n)) // theirs reads less than 0 as "no pool", which is what 0 means here
				c.source.flags[key] = flag
			}
		}
	}
	set("defaults.intra_op_threads", &c.Defaults.IntraOpThreads, "tensorflow_session_parallelism", "tensorflow_intra_op_parallelism")
	set("defaults.inter_op_threads", &c.Defaults.InterOpThreads, "tensorflow_session_parallelism", "tensorflow_inter_op_parallelism")
	if x := v.float("per_process_gpu_memory_fraction"); x != 0 {
		c.Runtime.GPU.MemoryFraction = x
		c.source.flags["runtime.gpu.memory_fraction"] = "per_process_gpu_memory_fraction"
	}
	return nil
}

func (s *serving) batching(c *Config) error {
	b := &c.Defaults.Batching
	b.Enabled = s.values.bool("enable_batching") && s.values.string("platform_config_file") == ""
	path := s.values.string("batching_parameters_file")
	if !b.Enabled || path == "" {
		return nil
	}
	data, err := readServingFile(path)
	if err != nil {
		return err
	}
	got, ignored, err := ParseBatchingParameters(path, data)
	if err != nil {
		return err
	}
	*b = got
	s.ignored = append(s.ignored, ignored...)
	return nil
}

func (s *serving) monitoring(c *Config) error {
	path := s.values.string("monitoring_config_file")
	if path == "" {
		return nil
	}
	data, err := readServingFile(path)
	if err != nil {
		return err
	}
	m, err := parseMonitoring(path, data)
	if err != nil {
		return err
	}
	if p := m.GetPath(); p != "" && !slices.Contains(c.Monitoring.Paths, p) {
		c.Monitoring.Paths = append(c.Monitoring.Paths, p)
		c.source.flags[fmt.Sprintf("monitoring.paths[%d]", len(c.Monitoring.Paths)-1)] = "monitoring_config_file"
	}
	if m != nil && !m.GetEnable() {
		c.Monitoring.Paths = []string{}
	}
	return nil
}

// models has the error when there is nothing to go on with, and faults when the models are known and wrong.
func (s *serving) models(c *Config) (Faults, error) {
	path := s.values.string("model_config_file")
	if path == "" {
		c.Models = []Model{{Name: s.values.string("model_name"), BasePath: s.values.string("model_base_path"), ModelOptions: c.Defaults}}
		c.source.flags["models[0].name"], c.source.flags["models[0].base_path"] = "model_name", "model_base_path"
		return nil, nil
	}
	for _, name := range []string{"model_name", "model_base_path"} {
		if _, given := s.values[name]; given {
			s.ignore("--"+name, "--model_config_file wins over it")
		}
	}
	data, err := readServingFile(path)
	if err != nil {
		return nil, err
	}
	models, ignored, faults := parseModelServerConfig(path, data, c.Defaults, c.source)
	s.ignored = append(s.ignored, ignored...)
	for i := range models {
		if p := &models[i].BasePath; *p != "" && !filepath.IsAbs(*p) && !strings.Contains(*p, "://") {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	c.Models = models
	c.source.file, c.source.sum, c.source.single = path, digest(data), true
	return faults, nil
}

// readServingFile is readFile with the error that TensorFlow Serving would stop with.
func readServingFile(path string) ([]byte, error) {
	data, err := readFile(path)
	var faults Faults
	if err != nil && !errors.As(err, &faults) {
		return nil, &StartError{&inference.Error{Code: inference.NotFound, Reason: inference.ReasonInput, Msg: err.Error()}}
	}
	return data, err
}
