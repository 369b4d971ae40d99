// meter.go: what a live version's requests and runs come to. It counts without a lock and allocates nothing.
package updater

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

const (
	sampleEvery  = 16        // of the answers of a version that nobody watches one in so many is looked through, for the comparison later
	sampleBytes  = 64 << 10  // of an answer, in that
	watchedBytes = 256 << 10 // of an answer, while the version is watched

	// Run times go into buckets of a quarter of an octave, from 1 microsecond to 2^30 times that; a signature has a row of buckets for
	// each power of two of rows in the run, so that like is compared with like.
	perOctave  = 4
	octaves    = 30
	runBuckets = octaves * perOctave
	runClasses = 8 // 1, 2 to 3, 4 to 7, ... rows; the last has all from 128
)

// Meter counts what one live version answers. Its methods may be called from any number of goroutines.
type Meter struct {
	requests, failed, refused, checked, nan atomic.Int64

	watched atomic.Bool
	turn    atomic.Uint32
	runs    map[string]*[runClasses][runBuckets]atomic.Uint32 // by signature; the map is immutable after New
}

// NewMeter is a meter for a version with these signatures.
func NewMeter(signatures map[string]*inference.Signature) *Meter {
	m := &Meter{runs: make(map[string]*[runClasses][runBuckets]atomic.Uint32, len(signatures))}
	for key := range signatures {
		m.runs[key] = new([runClasses][runBuckets]atomic.Uint32)
	}
	return m
}

// Watch has every answer looked through for NaN and infinity from now on, up to a bounded part of it; else some are.
func (m *Meter) Watch(on bool) { m.watched.Store(on) }

// Answer counts one request. Requests that never reached the graph, for the client's or the queue's sake, do not count.
func (m *Meter) Answer(r *inference.Response, err error) {
	if err != nil {
		switch faultOf(err) {
		case faultVersion:
			m.requests.Add(1)
			m.failed.Add(1)
		case faultInput:
			m.requests.Add(1)
			m.refused.Add(1)
		}
		return
	}
	m.requests.Add(1)
	limit := watchedBytes
	if !m.watched.Load() {
		if m.turn.Add(1)%sampleEvery != 0 {
			return
		}
		limit = sampleBytes
	}
	m.checked.Add(1)
	for _, t := range r.Outputs {
		if t == nil {
			continue
		}
		if oddNumbers(t.DType, t.Data[:min(len(t.Data), limit)]) {
			m.nan.Add(1)
			return
		}
		limit -= min(len(t.Data), limit)
	}
}

// Run counts one good run of that many rows.
func (m *Meter) Run(signature string, rows int64, took time.Duration) {
	if h := m.runs[signature]; h != nil {
		h[classOf(rows)][bucketOf(took)].Add(1)
	}
}

func classOf(rows int64) int { return min(runClasses-1, bits.Len64(uint64(max(1, rows)))-1) }

// bucketOf is the quarter of an octave that a time lies in.
func bucketOf(took time.Duration) int {
	us := float64(max(took, time.Microsecond)) / float64(time.Microsecond)
	return min(runBuckets-1, int(math.Log2(us)*perOctave))
}

// Measures has everything so far.
func (m *Meter) Measures() Measures {
	// What is a part of another number is read before that, so that it never is more than it.
	out := Measures{Failed: m.failed.Load(), Refused: m.refused.Load(), NaN: m.nan.Load()}
	out.Checked = m.checked.Load()
	out.Requests = m.requests.Load()
	for key, h := range m.runs {
		for class := range h {
			for bucket := range h[class] {
				if n := h[class][bucket].Load(); n > 0 {
					out.Runs = append(out.Runs, Runs{Signature: key, Class: class, Bucket: bucket, Count: int64(n)})
				}
			}
		}
	}
	sortRuns(out.Runs)
	return out
}

// fault says whose fault an error is.
type fault int

const (
	faultNobody  fault = iota // the client's own, or the queue's
	faultInput                // the graph found the input wrong
	faultVersion              // the version's, or its worker's
)

func faultOf(err error) fault {
	e := inference.AsError(err)
	switch e.Reason {
	case inference.ReasonInput, inference.ReasonModel, inference.ReasonQueueFull, inference.ReasonTooLarge, inference.ReasonDraining:
		return faultNobody
	}
	switch e.Code {
	case inference.Canceled:
		return faultNobody
	case inference.InvalidArgument, inference.OutOfRange:
		return faultInput
	case inference.Unavailable:
		if errors.Is(err, inference.ErrClosed) {
			return faultNobody
		}
	}
	return faultVersion
}

// oddNumbers reports whether there is a NaN or an infinity among the numbers: an exponent of ones alone. A one added to that runs over into
// the sign's bit and no further, so eight bytes are looked at at once.
func oddNumbers(d tensor.DType, data []byte) bool {
	var exponent, one, sign uint64
	switch d {
	case tensor.Float, tensor.Complex64:
		exponent, one, sign = 0x7f800000_7f800000, 0x00800000_00800000, 0x80000000_80000000
	case tensor.Double, tensor.Complex128:
		exponent, one, sign = 0x7ff00000_00000000, 0x00100000_00000000, 0x80000000_00000000
	case tensor.Half:
		exponent, one, sign = 0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400, 0x8000_8000_8000_8000
	case tensor.BFloat16:
		exponent, one, sign = 0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000
	default:
		return false
	}
	for ; len(data) >= 8; data = data[8:] {
		if (binary.LittleEndian.Uint64(data)&exponent+one)&sign != 0 {
			return true
		}
	}
	var last [8]byte // zeros are numbers
	copy(last[:], data[:len(data)-len(data)%d.Size()])
	return (binary.LittleEndian.Uint64(last[:])&exponent+one)&sign != 0
}
