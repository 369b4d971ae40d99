// memory.go: the settings about memory and disk space, and what they must fulfil.
package config

import (
	"cmp"
	"time"
)

// Memory is about the memory that inferd and its workers take together.
type Memory struct {
	Limit    Bytes `yaml:"limit" doc:"What inferd and its workers may take together. 0, or more than a cgroup or the machine has: the tightest limit of the cgroup and its ancestors, else the machine's memory. \"inferd doctor\" says which counts."`
	Reserve  Bytes `yaml:"reserve" doc:"What is kept free of the limit, at most a quarter of it. 0: a sixteenth, at least 64MiB and at most 1GiB."`
	Requests Bytes `yaml:"requests" doc:"What the bodies and tensors of all requests in flight may take of the limit together; past it requests are refused. 0: a quarter, at most 1GiB."`
	Evict    bool  `yaml:"evict" doc:"Where memory is needed for a version, park live ones of which nothing runs or waits, the least recently used first: their workers end, and are started again by the next request. Off: what does not fit is not loaded."`
}

// State is about what is kept on disk.
type State struct {
	DiskFloor Bytes `yaml:"disk_floor" doc:"Free space on the file system of state_dir below which nothing durable is begun. 0: a twentieth of the file system, at most 256MiB."`
}

// MinMemory is less than which nothing can be served: what the core, an opened TensorFlow and the smallest worker take.
const MinMemory = 128 << 20

func (c *checker) memory(m *Memory) {
	if m.Limit != 0 && m.Limit < MinMemory {
		c.addf("memory.limit", "%v is less than inferd and TensorFlow need without any model; write at least %v, or 0 for what the cgroup or the machine has", m.Limit, Bytes(MinMemory))
		return
	}
	if m.Limit == 0 {
		return
	}
	if m.Reserve > 0 && m.Reserve >= m.Limit {
		c.addf("memory.reserve", "%v is as much as memory.limit, which is %v, and leaves nothing; write less", m.Reserve, m.Limit)
	} else if m.Requests > 0 && m.Requests >= m.Limit-m.Reserve {
		c.addf("memory.requests", "%v leaves no memory for models: memory.limit is %v, less memory.reserve; write less", m.Requests, m.Limit)
	}
}

// ownMemory checks a model's own limits.
func (c *checker) ownMemory(at string, o *ModelOptions) {
	if o.MemoryLimit != 0 && o.MemoryLimit < 16<<20 {
		c.addf(at+".memory_limit", "%v is less than any worker needs; write at least 16MiB, or 0 for runtime.worker_memory_limit", o.MemoryLimit)
	}
	c.duration(at+".keep_alive", o.KeepAlive, 0, maxWait)
	if d := o.KeepAlive; d > 0 && d < time.Second {
		c.addf(at+".keep_alive", "%s is less than 1s; write that or more, or 0s", formatDuration(d))
	}
	if o.Pinned && o.KeepAlive > 0 {
		c.addf(at+".keep_alive", "a pinned model is never parked; leave out one of keep_alive and pinned")
	}
}

// WorkerLimit is the limit of a worker of a model with such options, 0 for none.
func (c *Config) WorkerLimit(o ModelOptions) int64 {
	return int64(cmp.Or(o.MemoryLimit, c.Runtime.WorkerMemoryLimit))
}
