// servingflags.go: the flags of tensorflow_model_server and what each means here.
package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Kinds of flags, with TensorFlow's rules for their values.
const (
	kindBool   = "bool"
	kindInt    = "int"   // 32 bits
	kindInt64  = "int64" // 64 bits
	kindFloat  = "float"
	kindString = "string"
)

// servingFlag is one flag that TensorFlow Serving knows. One of meaning, ignored and refused is set.
type servingFlag struct {
	name, kind string
	initial    string // TensorFlow Serving's default, where a bare bool needs none
	meaning    string
	ignored    string // the reason why it changes nothing here
	refused    string // the reason why the server does not start with it
}

func (f servingFlag) doc() string {
	switch {
	case f.ignored != "":
		return "Accepted and logged: " + f.ignored + "."
	case f.refused != "":
		return "Refused: " + f.refused + "."
	default:
		return f.meaning
	}
}

const tfliteReason = "only SavedModels are served"

var servingFlags = []servingFlag{
	{name: "port", kind: kindInt, initial: "8500", meaning: "listen.grpc, on every interface. 0: off, which needs --grpc_socket_path."},
	{name: "grpc_socket_path", kind: kindString, meaning: "listen.grpc_socket."},
	{name: "rest_api_port", kind: kindInt, initial: "0", meaning: "listen.http, on every interface. 0: off. The same as --port: off, with a warning."},
	{name: "rest_api_num_threads", kind: kindInt, ignored: "connections take no threads here"},
	{name: "rest_api_timeout_in_ms", kind: kindInt, initial: "30000", meaning: "defaults.default_deadline; defaults.run_timeout grows with it. 0 or less: a day."},
	{name: "rest_api_enable_cors_support", kind: kindBool, meaning: "rest.cors."},
	{name: "enable_batching", kind: kindBool, meaning: "defaults.batching.enabled; without it every request is a run of its own, as in TensorFlow Serving."},
	{name: "allow_version_labels_for_unavailable_models", kind: kindBool, meaning: "grpc.reload_any_label. In a file a label may always name a version that is not there yet."},
	{name: "batching_parameters_file", kind: kindString, meaning: "Text proto BatchingParameters, into defaults.batching."},
	{name: "enable_per_model_batching_parameters", kind: kindBool, ignored: "batching_params.pbtxt inside a SavedModel is not read; set batching for each model in a YAML configuration"},
	{name: "model_config_file", kind: kindString, meaning: "Text proto ModelServerConfig, into models. Wins over --model_name and --model_base_path."},
	{name: "model_config_file_poll_wait_seconds", kind: kindInt, meaning: "updater.config_poll. 0 and less: the file is read at the start, at SIGHUP and by inferd reload."},
	{name: "model_name", kind: kindString, initial: "default", meaning: "The one model's name."},
	{name: "model_base_path", kind: kindString, meaning: "The one model's base_path."},
	{name: "num_load_threads", kind: kindInt, ignored: "each version is loaded by a process of its own"},
	{name: "num_unload_threads", kind: kindInt, ignored: "a version is unloaded by ending its process"},
	{name: "max_num_load_retries", kind: kindInt, ignored: "a version that fails is tried again when its files change"},
	{name: "load_retry_interval_micros", kind: kindInt64, ignored: "a version that fails is tried again when its files change"},
	{name: "file_system_poll_wait_seconds", kind: kindInt, initial: "1", meaning: "updater.poll_interval. 0 and less, which would not look again, is logged and changes nothing."},
	{name: "flush_filesystem_caches", kind: kindBool, ignored: "the kernel drops cached files when memory is needed"},
	{name: "tensorflow_session_parallelism", kind: kindInt64, meaning: "defaults.intra_op_threads and defaults.inter_op_threads."},
	{name: "tensorflow_session_config_file", kind: kindString, meaning: "Text proto ConfigProto: threads, GPU memory fraction, growth and visible devices. Its other fields are logged and change nothing."},
	{name: "tensorflow_intra_op_parallelism", kind: kindInt64, meaning: "defaults.intra_op_threads."},
	{name: "tensorflow_inter_op_parallelism", kind: kindInt64, meaning: "defaults.inter_op_threads."},
	{name: "use_alts_credentials", kind: kindBool, refused: "ALTS is not supported, and the port would be open without it"},
	{name: "ssl_config_file", kind: kindString, meaning: "listen.tls.ssl_config_file: text proto SSLConfig, for the gRPC port."},
	{name: "platform_config_file", kind: kindString, ignored: "there is one platform; as in TensorFlow Serving, batching flags do nothing beside it"},
	{name: "per_process_gpu_memory_fraction", kind: kindFloat, meaning: "runtime.gpu.memory_fraction."},
	{name: "saved_model_tags", kind: kindString, initial: "serve", meaning: "defaults.tags, with commas."},
	{name: "grpc_channel_arguments", kind: kindString, ignored: "they are options of another gRPC library"},
	{name: "grpc_max_threads", kind: kindInt, ignored: "calls take no threads here"},
	{name: "enable_model_warmup", kind: kindBool, ignored: "every version is tried with its recorded requests, where it has some, and with made-up ones before it is published"},
	{name: "num_request_iterations_for_warmup", kind: kindInt, ignored: "each recorded warm-up request is run once"},
	{name: "version", kind: kindBool, meaning: "Print the version and exit."},
	{name: "monitoring_config_file", kind: kindString, meaning: "Text proto MonitoringConfig: its path is added to monitoring.paths. Metrics are on without it."},
	{name: "remove_unused_fields_from_bundle_metagraph", kind: kindBool, ignored: "the graph is not kept in memory after loading"},
	{name: "prefer_tflite_model", kind: kindBool, ignored: tfliteReason},
	{name: "num_tflite_pools", kind: kindInt, ignored: tfliteReason},
	{name: "num_tflite_interpreters_per_pool", kind: kindInt, ignored: tfliteReason},
	{name: "enable_signature_method_name_check", kind: kindBool, ignored: "Predict takes signatures of any method"},
	{name: "xla_cpu_compilation_enabled", kind: kindBool, ignored: "graphs run as they were saved"},
	{name: "xla_gpu_compilation_enabled", kind: kindBool, ignored: "graphs run as they were saved"},
	{name: "enable_profiler", kind: kindBool, ignored: "there is no profiler service"},
	{name: "thread_pool_factory_config_file", kind: kindString, ignored: "threads are set by intra_op_threads, inter_op_threads and callers"},
	{name: "mixed_precision", kind: kindString, ignored: "graphs run as they were saved"},
	{name: "skip_initialize_tpu", kind: kindBool, ignored: "TPUs are not used"},
	{name: "enable_grpc_healthcheck_service", kind: kindBool, ignored: "the health service is always there"},
	{name: "enable_serialization_as_tensor_content", kind: kindBool, meaning: "grpc.tensor_content."},
}

// servingValues are the flags that were given, checked for their kind.
type servingValues map[string]string

// parseServingFlags reads args in TensorFlow's syntax: --flag=value, and --flag alone for a bool. A flag with a dot in its name is one
// of ours and lands in own. The last one of a name wins. Faults are for usage.
func parseServingFlags(args []string, own *Flags) (servingValues, Faults) {
	values := make(servingValues)
	var faults Faults
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(strings.TrimPrefix(args[i], "--"), "=")
		if !strings.HasPrefix(args[i], "--") || name == "" {
			faults = append(faults, Fault{Msg: fmt.Sprintf("unknown argument: %s; flags are written --flag=value", shorten(args[i]))})
			continue
		}
		if isFlag(name) {
			if !hasValue {
				value = "true" // what is no bool says so when it is read
			}
			own.set(name, value)
			continue
		}
		f := lookupServing(name)
		if f == nil {
			faults = append(faults, Fault{Msg: fmt.Sprintf("unknown argument: --%s%s", shorten(name), servingHint(name))})
			continue
		}
		if !hasValue && f.kind != kindBool {
			msg := fmt.Sprintf("needs a value: --%s=...", name)
			if i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
				msg = fmt.Sprintf("is followed by a space, after which TensorFlow Serving reads no value; write --%s=%s", name, shorten(args[i+1]))
				i++
			}
			faults = append(faults, Fault{Flag: name, Msg: msg})
			continue
		}
		text, ok := f.check(value, hasValue)
		if !ok {
			faults = append(faults, Fault{Flag: name, Msg: fmt.Sprintf("couldn't interpret value %s for flag %s, which is %s", shorten(value), name, article(f.kind))})
			continue
		}
		values[name] = text
	}
	return values, faults
}

func lookupServing(name string) *servingFlag {
	for i := range servingFlags {
		if servingFlags[i].name == name {
			return &servingFlags[i]
		}
	}
	return nil
}

func servingHint(name string) string {
	var names []string
	for _, f := range servingFlags {
		names = append(names, f.name)
	}
	for _, k := range flagKeys() {
		names = append(names, k.Path)
	}
	if positive, ok := strings.CutPrefix(name, "no"); ok && lookupServing(positive) != nil {
		return fmt.Sprintf("; write --%s=false", positive)
	}
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("; did you mean --%s?", near)
	}
	return ""
}

func article(kind string) string {
	switch kind {
	case kindInt:
		return "a whole number of 32 bits"
	case kindInt64:
		return "a whole number of 64 bits"
	case kindBool:
		return "true or false"
	default:
		return "a number"
	}
}

// check gives the value in Go's spelling.
func (f *servingFlag) check(value string, given bool) (text string, ok bool) {
	switch f.kind {
	case kindBool:
		switch {
		case !given || strings.EqualFold(value, "true") || value == "1":
			return "true", true
		case strings.EqualFold(value, "false") || value == "0":
			return "false", true
		}
		return "", false
	case kindInt, kindInt64:
		bits := 64
		if f.kind == kindInt {
			bits = 32
		}
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, bits)
		return strconv.FormatInt(n, 10), err == nil
	case kindFloat:
		_, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		return strings.TrimSpace(value), err == nil
	}
	return value, true
}

func (v servingValues) string(name string) string {
	if s, ok := v[name]; ok {
		return s
	}
	return lookupServing(name).initial
}

func (v servingValues) bool(name string) bool { return v.string(name) == "true" }

func (v servingValues) int(name string) int64 {
	n, _ := strconv.ParseInt(v.string(name), 10, 64) // checked when it was read; "" is 0
	return n
}

func (v servingValues) float(name string) float64 {
	x, _ := strconv.ParseFloat(v.string(name), 64) // checked when it was read; "" is 0
	return x
}
