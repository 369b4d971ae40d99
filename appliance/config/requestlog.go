// requestlog.go: the settings of the request log, and what they must fulfil.
package config

import (
	"fmt"
	"time"

	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
)

// RequestLog bounds what the logs of all models take.
type RequestLog struct {
	MaxBytes  Bytes         `yaml:"max_bytes" doc:"Bytes of all files under state_dir/requests; past it the oldest are removed."`
	MaxAge    time.Duration `yaml:"max_age" doc:"A file that was finished so long ago is removed."`
	FileBytes Bytes         `yaml:"file_bytes" doc:"A file is finished, and another one begun, at this size."`
	FileAge   time.Duration `yaml:"file_age" doc:"A file is finished when its first record is so old."`
}

// ModelLog says which requests of a model are logged, and how.
type ModelLog struct {
	Rate     float64       `yaml:"rate" doc:"Share of the model's predictions that is logged, by chance: 0 none, 1 every one."`
	Format   RequestFormat `yaml:"format" doc:"json (a line for each request) or tfrecord (PredictionLogs of what was answered, as TensorFlow Serving writes them: a file of it is the next version's assets.extra/tf_serving_warmup_requests)."`
	Payloads bool          `yaml:"payloads" doc:"Log the inputs and outputs themselves. Off: their types, shapes and sizes. tfrecord has nothing else, and asks for it."`
}

// RequestFormat is the form of a log's files.
type RequestFormat string

// The forms.
const (
	RequestJSON     RequestFormat = "json"
	RequestTFRecord RequestFormat = "tfrecord"
)

func defaultModelLog() ModelLog { return ModelLog{Format: RequestJSON} }

func defaultRequestLog() RequestLog {
	return RequestLog{MaxBytes: 256 << 20, MaxAge: 7 * 24 * time.Hour, FileBytes: 16 << 20, FileAge: time.Hour}
}

func (c *checker) requestLog(l *RequestLog) {
	c.number("request_log.max_bytes", int64(l.MaxBytes), 1<<20, mostQueueBytes)
	c.number("request_log.file_bytes", int64(l.FileBytes), 1<<16, mostQueueBytes)
	if l.FileBytes > l.MaxBytes {
		c.addf("request_log.file_bytes", "%v is more than all files may have together, which is request_log.max_bytes, %v; write less, or raise that", l.FileBytes, l.MaxBytes)
	}
	c.duration("request_log.max_age", l.MaxAge, time.Minute, maxAge)
	c.duration("request_log.file_age", l.FileAge, time.Second, maxAge)
}

func (c *checker) modelRequestLog(at string, l *ModelLog) {
	if !(l.Rate >= 0 && l.Rate <= 1) {
		c.addf(at+".rate", "%v is no share; write a number from 0 to 1", l.Rate)
	}
	c.oneOf(at+".format", string(l.Format), string(RequestJSON), string(RequestTFRecord))
	if l.Format == RequestTFRecord && !l.Payloads && l.Rate > 0 {
		c.addf(at+".payloads", "a TFRecord file holds the requests themselves; write payloads: true, or format: json")
	}
}

// logging takes over a logging_config: how much is logged. TensorFlow Serving's own server ends where it finds one.
func (r *modelReader) logging(l *config_go_proto.LoggingConfig) {
	if l == nil {
		return
	}
	rate := l.GetSamplingConfig().GetSamplingRate()
	if !(rate >= 0 && rate <= 1) {
		r.faultf("logging_config.sampling_config.sampling_rate", "%v is no share; write a number from 0 to 1", rate)
		return
	}
	r.model.RequestLog = ModelLog{Rate: rate, Format: RequestTFRecord, Payloads: true}
	ignore := func(name, reason string) {
		r.ignored = append(r.ignored, Ignored{Name: fmt.Sprintf("%s: logging_config.%s of model %s", r.file, name, r.model.Name), Reason: reason})
	}
	if l.GetLogCollectorConfig() != nil {
		ignore("log_collector_config", "requests are logged to TFRecord files under state_dir/requests")
	}
	if l.GetSamplingConfig().GetAttributes() != 0 {
		ignore("sampling_config.attributes", "a record has the request, its answer, its version and the time")
	}
	if len(l.GetSamplingConfig().ProtoReflect().GetUnknown()) > 0 {
		ignore("sampling_config.per_task_sampling_configs", "there are no tasks here, sampling_rate counts")
	}
}
