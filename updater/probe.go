// probe.go: the made-up run that every version must survive before it is published.
package updater

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// ProbeOptions bound a made-up run. Zero means default.
type ProbeOptions struct {
	MaxBatch int           // the largest batch tried; 64
	Budget   time.Duration // for batches above one, all signatures together; 10 s. The run of batch 1 is not bounded by it
	// Memory measures what the runner's worker uses; ok is false when it cannot tell. nil measures nothing.
	Memory func(r inference.Runner) (bytes int64, ok bool)
	// Peak is the most memory that the runner's worker has used at once since its start or since the last call with anew; ok is false when
	// it cannot tell. nil measures nothing.
	Peak func(r inference.Runner, anew bool) (bytes int64, ok bool)
	// Waited is how long the runner's worker has waited for processors that others had, so far; nil counts nothing. It is no part of a run's time.
	Waited func(r inference.Runner) time.Duration
	// MemoryLimitBytes is what the worker may use; doubling stops before it is passed. 0: no limit.
	MemoryLimitBytes int64
	MaxInputBytes    int64 // of one run's made-up inputs; 256 MiB
}

func (o ProbeOptions) withDefaults() ProbeOptions {
	if o.MaxBatch <= 0 {
		o.MaxBatch = 64
	}
	if o.Budget <= 0 {
		o.Budget = 10 * time.Second
	}
	if o.Memory == nil {
		o.Memory = func(inference.Runner) (int64, bool) { return 0, false }
	}
	if o.Peak == nil {
		o.Peak = func(inference.Runner, bool) (int64, bool) { return 0, false }
	}
	if o.MaxInputBytes <= 0 {
		o.MaxInputBytes = 256 << 20
	}
	return o
}

// Proof is what the runs before a version went live have shown.
type Proof struct {
	Signatures map[string]SignatureProof // by key; every signature of the version
	// Unproven is the reason why the version was not shown to work; empty when at least one signature ran and none was refused its
	// made-up input.
	Unproven string
	// Bytes that the worker used: the most while it loaded, the most during these runs, and after them. 0: not measured.
	LoadPeak, Peak, Rest int64
}

// SignatureProof is what made-up runs have shown of one signature.
type SignatureProof struct {
	Largest  int64                   // the largest batch that ran; 0: none did
	Times    map[int64]time.Duration // the run time by batch size, the better of two for batch 1
	Memory   int64                   // bytes that the worker used after the largest run; 0: not measured
	Reason   string                  // why it was not run or is unproven; empty when it ran
	Limit    string                  // why larger batches were not tried
	Recorded int                     // recorded requests that ran
	Slowest  time.Duration           // of these
	Golden   int                     // golden cases that ran and gave what they should
	Mixes    bool                    // the rows of a batch influence each other: its requests must not be joined
	Warnings []string                // NaN and infinity in an output, mixed rows

	fill filling // of the run of batch 1 that ran
}

// Singly has the keys of the signatures whose requests must not be joined though their shapes allow it.
func (p Proof) Singly() map[string]bool {
	keys := make(map[string]bool)
	for key, s := range p.Signatures {
		if s.Mixes {
			keys[key] = true
		}
	}
	return keys
}

// Warnings has every signature's warnings, in order of the key.
func (p Proof) Warnings() []string {
	var all []string
	for _, key := range sortedKeys(p.Signatures) {
		for _, w := range p.Signatures[key].Warnings {
			all = append(all, fmt.Sprintf("signature %q: %s", key, w))
		}
	}
	return all
}

// Probe runs every signature that writes no variable on made-up inputs: batch 1, then, where requests can be joined, doubled while
// time and memory allow. INVALID_ARGUMENT or OUT_OF_RANGE mean that the made-up input was no good and leave the signature unproven.
// Any other failure at batch 1 is returned and refuses the version; at a larger batch so does everything but RESOURCE_EXHAUSTED.
func Probe(ctx context.Context, r inference.Runner, signatures map[string]*inference.Signature, o ProbeOptions) (Proof, error) {
	o = o.withDefaults()
	p := Proof{Signatures: make(map[string]SignatureProof, len(signatures))}
	var unproven, skipped []string
	ran := false
	left := o.Budget
	for _, key := range probeOrder(signatures) {
		sp, tried, err := probeSignature(ctx, r, signatures[key], o, &left)
		p.Signatures[key] = sp
		if err != nil {
			return p, fmt.Errorf("made-up run of signature %q: %w", key, err)
		}
		switch {
		case sp.Largest > 0:
			ran = true
		case tried:
			unproven = append(unproven, fmt.Sprintf("signature %q: %s", key, sp.Reason))
		default:
			skipped = append(skipped, fmt.Sprintf("signature %q: %s", key, sp.Reason))
		}
	}
	if !ran {
		unproven = append(unproven, skipped...)
	}
	switch {
	case len(unproven) > 0:
		p.Unproven = "not proven by a made-up run: " + strings.Join(unproven, "; ")
	case len(signatures) == 0:
		p.Unproven = "not proven by a made-up run: the model has no signature"
	}
	return p, nil
}

// probeOrder is the default signature first, then by key.
func probeOrder(signatures map[string]*inference.Signature) []string {
	keys := sortedKeys(signatures)
	if i := slices.Index(keys, inference.DefaultSignature); i > 0 {
		keys = slices.Insert(slices.Delete(keys, i, i+1), 0, inference.DefaultSignature)
	}
	return keys
}

// probeSignature runs one signature. tried is false when it was passed over on purpose. Time above batch 1 is taken from left.
func probeSignature(ctx context.Context, r inference.Runner, sig *inference.Signature, o ProbeOptions, left *time.Duration) (sp SignatureProof, tried bool, err error) {
	if sig.Writes {
		sp.Reason = "it writes variables, so it is not run on made-up inputs"
		return sp, false, nil
	}
	sp.Times = make(map[int64]time.Duration)
	fill, took, err := probeFirst(ctx, r, sig, o, &sp)
	if err != nil || sp.Reason != "" {
		return sp, true, err
	}
	sp.Largest = 1
	sp.Times[1] = took
	before, measured := o.Memory(r)
	sp.Memory = before
	if !sig.Batchable {
		sp.Limit = sig.Unbatchable
		return sp, true, nil
	}
	err = probeBatches(ctx, r, sig, fill, o, left, &sp, measured)
	if err == nil && sp.Largest > 1 && mixesRows(ctx, r, sig, fill, o.MaxInputBytes) {
		sp.Mixes, sp.Largest = true, 1
		sp.Limit = "the answer to a row depends on the other rows of its batch"
		sp.Warnings = append(sp.Warnings, sp.Limit+", so its requests run singly")
	}
	return sp, true, err
}

// probeBatches doubles the batch while time and memory allow; sp.Limit says why it stopped before the cap.
func probeBatches(ctx context.Context, r inference.Runner, sig *inference.Signature, fill filling, o ProbeOptions, left *time.Duration, sp *SignatureProof,
	measured bool) error {
	growth := int64(0)
	for n := int64(2); n <= int64(o.MaxBatch); n *= 2 {
		switch {
		case 2*sp.Times[n/2] > *left:
			sp.Limit = fmt.Sprintf("batch %d was not tried: the time for made-up runs (%v) is used up", n, o.Budget)
			return nil
		case measured && o.MemoryLimitBytes > 0 && sp.Memory+2*growth > o.MemoryLimitBytes:
			sp.Limit = fmt.Sprintf("batch %d was not tried: the worker uses %d of %d bytes", n, sp.Memory, o.MemoryLimitBytes)
			return nil
		}
		inputs, err := makeInputs(sig, n, fill, o.MaxInputBytes)
		if err != nil {
			sp.Limit = err.Error()
			return nil
		}
		watch := o.stopwatch(r)
		err = probeRun(ctx, r, sig, inputs, sp)
		took := watch.took()
		*left -= took
		if err != nil {
			if c := code(err); (c == inference.InvalidArgument || c == inference.OutOfRange || c == inference.ResourceExhausted) && !died(err) {
				sp.Limit = fmt.Sprintf("batch %d failed on made-up inputs: %s", n, inference.AsError(err).Msg)
				return nil
			}
			return fmt.Errorf("batch %d: %w", n, err)
		}
		sp.Largest, sp.Times[n] = n, took
		if after, ok := o.Memory(r); ok {
			growth, sp.Memory = max(0, after-sp.Memory), after
		}
	}
	return nil
}

// probeFirst makes the run of batch 1 with one filling, and with another where the graph does not like the first. It sets sp.Reason
// when the signature stays unproven.
func probeFirst(ctx context.Context, r inference.Runner, sig *inference.Signature, o ProbeOptions, sp *SignatureProof) (fill filling, took time.Duration, err error) {
	for _, fill = range []filling{onesAndZeros, zerosAndOnes} {
		inputs, err := makeInputs(sig, 1, fill, o.MaxInputBytes)
		if err != nil {
			sp.Reason = "its inputs cannot be made up: " + err.Error()
			return fill, 0, nil
		}
		watch := o.stopwatch(r)
		err = probeRun(ctx, r, sig, inputs, sp)
		took = watch.took()
		if err == nil {
			// The first run pays for what later ones find done; one more says what a run takes.
			watch = o.stopwatch(r)
			if err := probeRun(ctx, r, sig, inputs, nil); err != nil {
				return fill, took, fmt.Errorf("second run: %w", err)
			}
			sp.Reason, sp.fill = "", fill
			return fill, min(took, watch.took()), nil
		}
		if c := code(err); (c != inference.InvalidArgument && c != inference.OutOfRange) || died(err) {
			return fill, took, err
		}
		sp.Reason = inference.AsError(err).Msg
	}
	return fill, took, nil
}

func died(err error) bool {
	return errors.Is(err, inference.ErrWorkerDied) || errors.Is(err, inference.ErrRunTimeout)
}

func code(err error) inference.Code { return inference.AsError(err).Code }

// probeRun makes one run of every output. With sp, it looks for NaN and infinity.
func probeRun(ctx context.Context, r inference.Runner, sig *inference.Signature, inputs []*tensor.Tensor, sp *SignatureProof) error {
	res, err := r.Run(ctx, madeUpRun(sig, inputs))
	if err != nil {
		return err
	}
	defer res.Release()
	if len(res.Outputs) != len(sig.Outputs) {
		return inference.Errorf(inference.Internal, inference.ReasonRuntime, "the run gave %d outputs, the signature has %d", len(res.Outputs), len(sig.Outputs))
	}
	if sp == nil || len(sp.Warnings) > 0 {
		return nil
	}
	for i, t := range res.Outputs {
		if what := odd(t); what != "" {
			sp.Warnings = append(sp.Warnings, fmt.Sprintf("output %q is %s on made-up inputs", sig.Outputs[i].Alias, what))
		}
	}
	return nil
}

// madeUpRun asks for every output.
func madeUpRun(sig *inference.Signature, inputs []*tensor.Tensor) *inference.Run {
	run := &inference.Run{Signature: sig, Inputs: make([]tensor.Parts, len(inputs)), Outputs: make([]int, len(sig.Outputs))}
	for i, t := range inputs {
		run.Inputs[i] = tensor.One(t)
	}
	for i := range run.Outputs {
		run.Outputs[i] = i
	}
	return run
}

// filling is what made-up numbers are: 1 for floating point and 0 for the rest (indexes into tables), or the other way round.
type filling int

const (
	onesAndZeros filling = iota + 1
	zerosAndOnes
)

// makeInputs makes one tensor per input with n rows where the first dimension is free, and 1 for every other free dimension.
func makeInputs(sig *inference.Signature, n int64, fill filling, limit int64) ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(sig.Inputs))
	for i := range sig.Inputs {
		info := &sig.Inputs[i]
		if !info.DType.Carried() {
			return nil, fmt.Errorf("input %q is of type %v", info.Alias, info.DType)
		}
		shape := make(tensor.Shape, 0, len(info.Shape))
		if info.UnknownRank {
			shape = append(shape, n)
		}
		for d, size := range info.Shape {
			switch {
			case size >= 0:
			case d == 0 && sig.Batchable:
				size = n
			default:
				size = 1
			}
			shape = append(shape, size)
		}
		elements, err := shape.Elements()
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", info.Alias, err)
		}
		size := int64(info.DType.Size())
		if size == 0 {
			size = 24 // a string header; the strings are empty
		}
		if elements > limit/size {
			return nil, fmt.Errorf("input %q of shape %v would take more than %d bytes", info.Alias, shape, limit)
		}
		limit -= elements * size
		if out[i], err = filled(info.DType, shape, elements, fill); err != nil {
			return nil, fmt.Errorf("input %q: %w", info.Alias, err)
		}
	}
	return out, nil
}

func filled(d tensor.DType, shape tensor.Shape, elements int64, fill filling) (*tensor.Tensor, error) {
	if d == tensor.String {
		return tensor.NewStrings(shape, make([][]byte, elements))
	}
	data := make([]byte, elements*int64(d.Size()))
	one, floating := oneOf(d)
	if floating == (fill == onesAndZeros) {
		for i := range elements {
			copy(data[i*int64(d.Size()):], one)
		}
	}
	return tensor.New(d, shape, data)
}

// oneOf is the number 1 of a type, little-endian.
func oneOf(d tensor.DType) (bytes []byte, floating bool) {
	switch d {
	case tensor.Float, tensor.Complex64:
		return binary.LittleEndian.AppendUint32(nil, math.Float32bits(1)), true
	case tensor.Double, tensor.Complex128:
		return binary.LittleEndian.AppendUint64(nil, math.Float64bits(1)), true
	case tensor.Half:
		return []byte{0x00, 0x3c}, true
	case tensor.BFloat16:
		return []byte{0x80, 0x3f}, true
	case tensor.Float8E5M2:
		return []byte{0x3c}, true
	case tensor.Float8E4M3:
		return []byte{0x38}, true
	default:
		return []byte{1}, false
	}
}

// odd names NaN or infinity among the first numbers of an output, "" when there is none.
func odd(t *tensor.Tensor) string {
	const most = 1 << 20
	var expo func(i int) (allOnes, zeroFraction bool)
	switch t.DType {
	case tensor.Float:
		expo = func(i int) (bool, bool) {
			v := binary.LittleEndian.Uint32(t.Data[4*i:])
			return v>>23&0xff == 0xff, v<<9 == 0
		}
	case tensor.Double:
		expo = func(i int) (bool, bool) {
			v := binary.LittleEndian.Uint64(t.Data[8*i:])
			return v>>52&0x7ff == 0x7ff, v<<12 == 0
		}
	case tensor.Half:
		expo = func(i int) (bool, bool) {
			v := binary.LittleEndian.Uint16(t.Data[2*i:])
			return v>>10&0x1f == 0x1f, v<<6 == 0
		}
	case tensor.BFloat16:
		expo = func(i int) (bool, bool) {
			v := binary.LittleEndian.Uint16(t.Data[2*i:])
			return v>>7&0xff == 0xff, v<<9 == 0
		}
	default:
		return ""
	}
	for i := range min(most, len(t.Data)/t.DType.Size()) {
		if special, infinite := expo(i); special {
			if infinite {
				return "infinite"
			}
			return "NaN"
		}
	}
	return ""
}
