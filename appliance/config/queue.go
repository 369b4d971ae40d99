// queue.go: the settings of the durable queue, and what they must fulfil.
package config

import (
	"cmp"
	"time"
)

// Queue is about jobs: requests that are kept on disk until they are answered.
type Queue struct {
	Enabled       bool          `yaml:"enabled" doc:"Take jobs (:submit). Off: there is no queue, and submits are refused."`
	MaxJobs       int           `yaml:"max_jobs" doc:"Jobs that are kept at most, waiting, running, finished and dead together."`
	MaxBytes      Bytes         `yaml:"max_bytes" doc:"Bytes of the payloads and results of all jobs, as they are stored (compressed where it pays)."`
	MaxPayload    Bytes         `yaml:"max_payload" doc:"The largest body of one job. 0: limits.max_request_bytes."`
	Full          QueueFull     `yaml:"full" doc:"What is done with a new job when the queue is full: refuse (it), or expire (the oldest job of the lowest priority that is no more urgent; it ends as expired, with that reason, and can be read by its id)."`
	MaxAge        time.Duration `yaml:"max_age" doc:"A job that was not answered for so long ends as expired. A client may ask for less with X-Inferd-Expires. 0s: never."`
	Retention     time.Duration `yaml:"retention" doc:"How long the result of a job is kept for a client that does not acknowledge it. 0s: until there is no room."`
	DeadRetention time.Duration `yaml:"dead_retention" doc:"How long a dead letter is kept. 0s: until an operator removes it."`
	MaxAttempts   int           `yaml:"max_attempts" doc:"Runs of a job that may fail before it becomes a dead letter. What its client got wrong fails it at once. A client may ask for another number, up to 100, with X-Inferd-Max-Attempts."`
	MaxDeaths     int           `yaml:"max_deaths" doc:"Deaths of its worker that make a job a dead letter."`
	Backoff       time.Duration `yaml:"backoff" doc:"How long a job waits after its first failed run. It doubles with each further one, and a part of it is left to chance."`
	MaxBackoff    time.Duration `yaml:"max_backoff" doc:"The longest that a job waits after a failed run."`
	Concurrency   int           `yaml:"concurrency" doc:"Jobs of one model that run at once. 0: as many as fill two batches for every caller of its worker, at most 256."`
}

// QueueFull says what a full queue does.
type QueueFull string

// The choices.
const (
	FullRefuse QueueFull = "refuse"
	FullExpire QueueFull = "expire"
)

// ModelQueue bounds the jobs of one model.
type ModelQueue struct {
	MaxJobs  int           `yaml:"max_jobs" doc:"Jobs of the model that may wait or run. 0: no limit but queue.max_jobs."`
	MaxBytes Bytes         `yaml:"max_bytes" doc:"Bytes of their bodies, as they are stored. 0: no limit but queue.max_bytes."`
	MaxAge   time.Duration `yaml:"max_age" doc:"A job of the model that was not answered for so long ends as expired. 0s: queue.max_age."`
}

const (
	// MostJobs is the most that queue.max_jobs may be.
	MostJobs = 100_000_000
	// MostAttempts is the most that anybody may ask for.
	MostAttempts = 100

	mostQueueBytes  = 1 << 44
	mostConcurrency = 4096
	maxAge          = 10 * 365 * 24 * time.Hour
)

func defaultQueue() Queue {
	return Queue{Enabled: true, MaxJobs: 1_000_000, MaxBytes: 1 << 30, Full: FullRefuse, MaxAge: 7 * 24 * time.Hour, Retention: 24 * time.Hour,
		DeadRetention: 7 * 24 * time.Hour, MaxAttempts: 3, MaxDeaths: 2, Backoff: time.Second, MaxBackoff: 5 * time.Minute}
}

func (c *checker) queue(q *Queue, maxBody Bytes) {
	c.number("queue.max_jobs", int64(q.MaxJobs), 1, MostJobs)
	c.number("queue.max_bytes", int64(q.MaxBytes), 1<<20, mostQueueBytes)
	c.number("queue.max_payload", int64(q.MaxPayload), 0, maxMessage)
	if q.MaxPayload > maxBody {
		c.addf("queue.max_payload", "%v is more than a request may have, which is limits.max_request_bytes, %v; write less, or raise that", q.MaxPayload, maxBody)
	}
	if q.MaxBytes >= 1<<20 && q.MaxBytes < q.MaxPayload {
		c.addf("queue.max_bytes", "%v is less than one job may have, which is queue.max_payload, %v; write at least that", q.MaxBytes, q.MaxPayload)
	}
	c.oneOf("queue.full", string(q.Full), string(FullRefuse), string(FullExpire))
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{"queue.max_age", q.MaxAge}, {"queue.retention", q.Retention}, {"queue.dead_retention", q.DeadRetention}} {
		c.duration(d.key, d.d, 0, maxAge)
		if d.d > 0 && d.d < time.Second {
			c.addf(d.key, "%s is less than 1s; write that or more, or 0s", formatDuration(d.d))
		}
	}
	c.number("queue.max_attempts", int64(q.MaxAttempts), 1, MostAttempts)
	c.number("queue.max_deaths", int64(q.MaxDeaths), 1, MostAttempts)
	c.duration("queue.backoff", q.Backoff, time.Millisecond, maxWait)
	c.duration("queue.max_backoff", q.MaxBackoff, time.Millisecond, maxWait)
	if q.MaxBackoff < q.Backoff {
		c.addf("queue.max_backoff", "%s is less than queue.backoff, which is %s; write that or more", formatDuration(q.MaxBackoff), formatDuration(q.Backoff))
	}
	c.number("queue.concurrency", int64(q.Concurrency), 0, mostConcurrency)
}

func (c *checker) modelQueue(at string, q *ModelQueue) {
	c.number(at+".queue.max_jobs", int64(q.MaxJobs), 0, MostJobs)
	c.number(at+".queue.max_bytes", int64(q.MaxBytes), 0, mostQueueBytes)
	c.duration(at+".queue.max_age", q.MaxAge, 0, maxAge)
	if d := q.MaxAge; d > 0 && d < time.Second {
		c.addf(at+".queue.max_age", "%s is less than 1s; write that or more, or 0s", formatDuration(d))
	}
}

// MaxJob is the largest body that a job may have.
func (c *Config) MaxJob() int64 { return int64(cmp.Or(c.Queue.MaxPayload, c.Limits.MaxRequestBytes)) }

// MaxAge is how long a job of a model with such options may wait, 0 for ever.
func (c *Config) MaxAge(o ModelOptions) time.Duration { return cmp.Or(o.Queue.MaxAge, c.Queue.MaxAge) }
