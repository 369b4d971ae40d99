// split.go: each caller's own rows, and requests too large for one run.
package batch

import (
	"context"
	"errors"
	"slices"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// response is the call's share of the result: its own rows, in the result's memory, which it holds until Release.
func (c *call) response() *inference.Response {
	return inference.NewResponse(c.outputs(), c.result.Release)
}

func (c *call) outputs() []*tensor.Tensor {
	if c.whole {
		return c.result.Outputs
	}
	outputs := make([]*tensor.Tensor, len(c.result.Outputs))
	for i, t := range c.result.Outputs {
		outputs[i] = t.Slice(c.from, c.from+c.rows)
	}
	return outputs
}

// parts are the row numbers at which a request of so many rows is cut. With allowed sizes each part but the last is full, for a
// part that is not would be padded; else all are about equal, for they may run beside each other.
func (l *limits) parts(rows int64) []int64 {
	n := (rows + l.execute - 1) / l.execute
	cuts := make([]int64, 0, n)
	for i := int64(1); i < n; i++ {
		if len(l.allowed) > 0 {
			cuts = append(cuts, i*l.execute)
		} else {
			cuts = append(cuts, rows/n*i+min(i, rows%n))
		}
	}
	return append(cuts, rows)
}

// predictParts answers a request that has more rows than a run may have: it is cut, its parts go through the queue like requests (and
// may be joined with others), and their outputs are joined. The parts wait together and fail together.
func (b *Batcher) predictParts(ctx context.Context, c *call) (*inference.Response, error) {
	var parts []*call
	from := int64(0)
	for _, to := range b.limits.parts(c.rows) {
		req := &inference.Request{Signature: c.req.Signature, Outputs: c.req.Outputs}
		for _, t := range c.req.Inputs {
			req.Inputs = append(req.Inputs, t.Slice(from, to))
		}
		req.Class, req.Client = c.req.Class, c.req.Client
		p := b.newCall(req, c.original)
		p.class, p.due = c.class, c.due
		p.print, p.hasPrint = c.print, c.hasPrint
		if p.flex { // padded differently, the parts' outputs might not fit together
			p.flex = false
			p.key = p.hash()
		}
		if c.exclusive {
			p.isolate()
		}
		parts, from = append(parts, p), to
	}
	if err := b.submit(parts...); err != nil {
		return nil, err
	}
	var results []*call
	defer func() {
		for _, p := range results {
			p.result.Release()
		}
	}()
	for i, p := range parts {
		gone, err := b.wait(ctx, p)
		if err == nil {
			results = append(results, p)
			continue
		}
		rest := parts[i+1:]
		b.abandon(rest)
		if !gone && errors.Is(err, errWhole) {
			return b.predict(ctx, c)
		}
		return nil, err
	}
	resp, ok := joinOutputs(results)
	if !ok {
		c.sig.single.Store(true)
		b.log.Warn("signature cannot be batched: the outputs of a request's parts do not fit together; its requests run singly from now on", "signature", c.sig.Key)
		return b.predict(ctx, c)
	}
	if c.exclusive {
		b.suspects.clear(c.print)
	}
	return resp, nil
}

// abandon takes parts out whose result is not wanted any more.
func (b *Batcher) abandon(parts []*call) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, p := range slices.Backward(parts) { // what waits first, or it begins while the one before it ends
		if b.leave(ended, p) == nil && p.err == nil {
			p.result.Release()
		}
	}
}

// joinOutputs copies the parts' outputs into one tensor each. ok is false when they do not fit together.
func joinOutputs(parts []*call) (resp *inference.Response, ok bool) {
	outputs := make([]*tensor.Tensor, len(parts[0].result.Outputs))
	pieces := make([][]*tensor.Tensor, len(outputs))
	for _, p := range parts {
		for i, t := range p.outputs() {
			if rows, ok := t.Rows(); !ok || rows != p.rows {
				return nil, false
			}
			pieces[i] = append(pieces[i], t)
		}
	}
	for i, list := range pieces {
		for _, t := range list[1:] {
			if t.DType != list[0].DType || !slices.Equal(t.Shape[1:], list[0].Shape[1:]) {
				return nil, false
			}
		}
		all := tensor.Parts{Pieces: list}
		buf := make([]byte, all.EncodedLen())
		all.Encode(buf)
		t, err := tensor.Decode(all.DType(), all.Shape(), buf)
		if err != nil {
			return nil, false
		}
		outputs[i] = t
	}
	return inference.NewResponse(outputs, nil), true
}
