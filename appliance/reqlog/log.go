// log.go: which requests are kept, and how they get to the writer.
package reqlog

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Defaults of Options.
const (
	defaultMaxBytes  = 256 << 20
	defaultMaxAge    = 7 * 24 * time.Hour
	defaultFileBytes = 16 << 20
	defaultFileAge   = time.Hour
)

const (
	maxRecord  = 1 << 20  // bytes of the tensors of one record
	maxWaiting = 16 << 20 // bytes of the records that wait to be written
	maxQueued  = 1024     // records that wait to be written
)

// Format is the form of a file.
type Format int

// The formats.
const (
	JSON Format = iota
	TFRecord
)

// Rule says what is kept of a model's requests.
type Rule struct {
	Rate     float64 // share of them, 0 none, 1 every one
	Format   Format
	Payloads bool // inputs and outputs too; TFRecord always has them
}

// Options of a Log. Zero means default.
type Options struct {
	// Dir has a folder of files for each model. It is made when the first record comes.
	Dir string
	// Rule is asked once for each model, and again after Reset. It is called while a request waits, so it must not block.
	Rule func(model string) Rule
	// MaxBytes and MaxAge bound the files of all models; FileBytes and FileAge say when one is finished and another begun.
	MaxBytes, FileBytes int64
	MaxAge, FileAge     time.Duration
	// Room says why nothing may be written now, nil while it may. Nil: it may always.
	Room func() error
	// Trouble is called by Run with why records are lost to the disk, and with nil when that is over. Nil: nobody is told.
	Trouble func(error)
	// Log is told of what is found at the start. Nil: discard.
	Log *slog.Logger
}

// Stats counts since New.
type Stats struct {
	Written int64          // records
	Dropped map[Drop]int64 // records, by why
	Bytes   int64          // of all files
}

// Drop is why a record was lost.
type Drop string

// The reasons.
const (
	Behind   Drop = "behind"    // the writer did not keep up
	TooLarge Drop = "too_large" // its tensors have more than a record may, and a TFRecord is nothing without them
	Disk     Drop = "disk"      // the disk did not take it, or has less free than its floor
	Full     Drop = "full"      // it alone is more than all files may have
)

var drops = []Drop{Behind, TooLarge, Disk, Full}

// Log takes requests from any number of goroutines while Run writes them.
type Log struct {
	opts    Options
	entries chan entry   // holds at most maxQueued, and of them no more than maxWaiting bytes
	waiting atomic.Int64 // bytes of them
	rules   atomic.Pointer[map[string]Rule]
	adding  sync.Mutex // held while a rule is added

	written, bytes atomic.Int64
	dropped        [4]atomic.Int64 // by the place in drops
}

// entry is one record as it lies in a file.
type entry struct {
	model  string
	format Format
	data   []byte
}

// New is a log that writes nothing until Run.
func New(opts Options) *Log {
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = defaultMaxBytes
	}
	if opts.MaxAge <= 0 {
		opts.MaxAge = defaultMaxAge
	}
	if opts.FileBytes <= 0 {
		opts.FileBytes = defaultFileBytes
	}
	if opts.FileAge <= 0 {
		opts.FileAge = defaultFileAge
	}
	if opts.Room == nil {
		opts.Room = func() error { return nil }
	}
	if opts.Trouble == nil {
		opts.Trouble = func(error) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Log = opts.Log.With("component", "request log")
	l := &Log{opts: opts, entries: make(chan entry, maxQueued)}
	l.Reset()
	return l
}

// Reset has the rules asked for again.
func (l *Log) Reset() {
	l.adding.Lock()
	defer l.adding.Unlock()
	l.rules.Store(&map[string]Rule{})
}

// rule is the model's. It takes a lookup, but for a model's first request.
func (l *Log) rule(model string) Rule {
	if r, ok := (*l.rules.Load())[model]; ok {
		return r
	}
	l.adding.Lock()
	defer l.adding.Unlock()
	before := *l.rules.Load()
	after := make(map[string]Rule, len(before)+1)
	for k, v := range before {
		after[k] = v
	}
	r := l.opts.Rule(model)
	after[model] = r
	l.rules.Store(&after)
	return r
}

// Wants reports whether this one of the version's requests is to be kept.
func (l *Log) Wants(v *inference.Version) bool {
	r := l.rule(v.Model)
	return r.Rate > 0 && (r.Rate >= 1 || rand.Float64() < r.Rate) //nolint:gosec // a sample, no secret
}

// Keep writes down a request that has ended, with its response or its error. It copies what it needs, and never waits.
func (l *Log) Keep(v *inference.Version, req *inference.Request, resp *inference.Response, err *inference.Error, took time.Duration) {
	r := l.rule(v.Model)
	if r.Format == TFRecord && err != nil {
		return
	}
	payloads, size := r.Payloads || r.Format == TFRecord, 0
	if payloads {
		size = sizeOf(req.Inputs)
		if resp != nil {
			size += sizeOf(resp.Outputs)
		}
		if size > maxRecord {
			if r.Format == TFRecord {
				l.drop(TooLarge, 1)
				return
			}
			payloads, size = false, 0
		}
	}
	if len(l.entries) == maxQueued || l.waiting.Load()+int64(size) > maxWaiting { // before anything is copied
		l.drop(Behind, 1)
		return
	}
	c := call{at: time.Now(), v: v, req: req, resp: resp, err: err, took: took}
	e := entry{model: v.Model, format: r.Format}
	if r.Format == TFRecord {
		e.data = c.tfrecord(r.Rate)
	} else {
		e.data = c.json(payloads)
	}
	n := int64(len(e.data))
	if l.waiting.Add(n) <= maxWaiting+maxRecord {
		select {
		case l.entries <- e:
			return
		default:
		}
	}
	l.waiting.Add(-n)
	l.drop(Behind, 1)
}

func (l *Log) drop(why Drop, n int64) {
	for i := range drops {
		if drops[i] == why {
			l.dropped[i].Add(n)
		}
	}
}

// Stats is a snapshot for metrics.
func (l *Log) Stats() Stats {
	s := Stats{Written: l.written.Load(), Bytes: l.bytes.Load(), Dropped: make(map[Drop]int64, len(drops))}
	for i, why := range drops {
		s.Dropped[why] = l.dropped[i].Load()
	}
	return s
}

// sizeOf is the bytes of the tensors' elements.
func sizeOf(list []*tensor.Tensor) int {
	n := 0
	for _, t := range list {
		if t == nil {
			continue
		}
		n += len(t.Data)
		for _, s := range t.Strings {
			n += len(s) + 2
		}
	}
	return n
}
