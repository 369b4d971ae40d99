// servingfiles.go: TensorFlow Serving's smaller files: batching parameters, session configuration, monitoring.
package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	for_core_protos "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"github.com/wamuir/graft/tensorflow/serving/servables/tensorflow_go_proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ParseBatchingParameters reads a batching_parameters_file (or a model's batching_params.pbtxt); name is used in messages. What the file
// leaves out has the default. The error is a [Faults].
func ParseBatchingParameters(name string, data []byte) (Batching, []Ignored, error) {
	p := &tensorflow_go_proto.BatchingParameters{}
	if faults := parseText(name, data, p); faults != nil {
		return Batching{}, nil, faults
	}
	b := defaultOptions().Batching
	src := &source{file: name}
	check := &checker{source: src}
	number := func(key string, v *wrapperspb.Int64Value, p *int64) {
		if v != nil && (v.Value < 1 || v.Value > math.MaxInt32) {
			check.addf(key, "%d is not between 1 and %d", v.Value, math.MaxInt32)
		} else if v != nil {
			*p = v.Value
		}
	}
	number("max_batch_size", p.MaxBatchSize, &b.MaxBatchSize)
	number("max_enqueued_batches", p.MaxEnqueuedBatches, &b.MaxEnqueuedBatches)
	number("max_execution_batch_size", p.MaxExecutionBatchSize, &b.MaxExecutionBatchSize)
	var threads int64
	number("num_batch_threads", p.NumBatchThreads, &threads)
	b.NumBatchThreads = int(threads)
	if micros := p.GetBatchTimeoutMicros().GetValue(); micros < 0 || micros > maxWait.Microseconds() {
		check.addf("batch_timeout_micros", "%d is not between 0 and %d", micros, maxWait.Microseconds())
	} else {
		b.BatchTimeout = time.Duration(micros) * time.Microsecond
	}
	if s := p.GetEnableLargeBatchSplitting(); s != nil {
		b.LargeBatchSplitting = Switch(strconv.FormatBool(s.GetValue()))
	}
	b.PadVariableLengthInputs = p.GetPadVariableLengthInputs()
	b.AllowedBatchSizes = p.GetAllowedBatchSizes()
	var ignored []Ignored
	if p.ThreadPoolName != nil {
		ignored = append(ignored, Ignored{Name: name + ": thread_pool_name", Reason: "every version has a pool of its own"})
	}
	if b.MaxExecutionBatchSize != 0 && b.LargeBatchSplitting != On {
		ignored = append(ignored, Ignored{Name: name + ": max_execution_batch_size", Reason: "enable_large_batch_splitting is not set"})
		b.MaxExecutionBatchSize = 0
	}
	if len(check.faults) == 0 {
		check.batching("batching", &b)
	}
	return b, ignored, check.faults.err()
}

// parseSession reads a ConfigProto into c.
func parseSession(name string, data []byte, c *Config) ([]Ignored, error) {
	p := &for_core_protos.ConfigProto{}
	if faults := parseText(name, data, p); faults != nil {
		return nil, faults
	}
	c.Defaults.IntraOpThreads = int(max(0, p.GetIntraOpParallelismThreads()))
	c.Defaults.InterOpThreads = int(max(0, p.GetInterOpParallelismThreads()))
	from := c.source.flags
	from["defaults.intra_op_threads"], from["defaults.inter_op_threads"] = "tensorflow_session_config_file", "tensorflow_session_config_file"
	if g := p.GetGpuOptions(); g != nil {
		c.Runtime.GPU = GPU{MemoryFraction: g.GetPerProcessGpuMemoryFraction(), AllowGrowth: g.GetAllowGrowth(), VisibleDevices: g.GetVisibleDeviceList()}
		from["runtime.gpu"] = "tensorflow_session_config_file"
	}
	ignored := others(name, p.ProtoReflect(), "intra_op_parallelism_threads", "inter_op_parallelism_threads", "gpu_options")
	return append(ignored, others(name+": gpu_options", p.GetGpuOptions().ProtoReflect(), "per_process_gpu_memory_fraction", "allow_growth", "visible_device_list")...), nil
}

// others names the fields of m that are set and not among those that were read.
func others(where string, m protoreflect.Message, read ...protoreflect.Name) []Ignored {
	var list []Ignored
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(read, f.Name()) {
			list = append(list, Ignored{Name: fmt.Sprintf("%s: %s", where, f.Name()), Reason: "sessions have threads and GPU options, and nothing else is set"})
		}
		return true
	})
	slices.SortFunc(list, func(a, b Ignored) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}

// parseMonitoring reads a MonitoringConfig; nil when it says nothing about Prometheus.
func parseMonitoring(name string, data []byte) (*config_go_proto.PrometheusConfig, error) {
	m := &config_go_proto.MonitoringConfig{}
	if faults := parseText(name, data, m); faults != nil {
		return nil, faults
	}
	return m.GetPrometheusConfig(), nil
}
