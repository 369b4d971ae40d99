// run_test.go: what becomes of a run's requests when it fails.
package batch

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

// failOn is a graph that fails with code where a run holds the value 13.
func failOn(code inference.Code) func(fake.Record) ([]*tensor.Tensor, error) {
	return func(r fake.Record) ([]*tensor.Tensor, error) {
		if has(r, 13) {
			return nil, inference.Errorf(code, inference.ReasonRuntime, "unlucky")
		}
		return fake.Echo(r)
	}
}

func TestOneBadRequestDoesNotFailItsMates(t *testing.T) {
	for _, code := range []inference.Code{inference.InvalidArgument, inference.OutOfRange, inference.FailedPrecondition, inference.NotFound,
		inference.Internal, inference.Unimplemented, inference.Unknown} {
		t.Run(code.String(), func(t *testing.T) {
			inBubble(t, &fake.Runner{Latency: always(ms), Graph: failOn(code)}, Options{}, func(b *bench) {
				as := b.sendAll(rows(0), rows(1), rows(13, 14), rows(2))
				settle(20 * ms)
				b.want(as[1], 1)
				if e := b.fails(as[2], code, inference.ReasonRuntime); e.Msg != "unlucky" {
					b.Error(e.Msg)
				}
				b.want(as[3], 2)
				b.ran(1, 4, 1, 2, 1)
			})
		})
	}
}

// An error that is not one request's fault is given to all of them at once.
func TestErrorsThatAreNotRepeated(t *testing.T) {
	for _, code := range []inference.Code{inference.Unavailable, inference.DeadlineExceeded} {
		inBubble(t, &fake.Runner{Latency: always(ms), Graph: failOn(code)}, Options{}, func(b *bench) {
			as := b.sendAll(rows(0), rows(1), rows(13))
			settle(20 * ms)
			b.fails(as[1], code, inference.ReasonRuntime)
			b.fails(as[2], code, inference.ReasonRuntime)
			b.ran(1, 2)
		})
	}
	// What writes is never repeated, whatever the error.
	writes := fake.Signature("writes", tensor.Float, 1, 1)
	writes.Writes = true
	for _, cause := range []error{inference.Errorf(inference.InvalidArgument, "", "bad"), inference.Errorf(inference.ResourceExhausted, "", "OOM"), errSegv,
		inference.ErrRunTimeout, inference.ErrClosed} {
		f := &fake.Runner{Graph: func(fake.Record) ([]*tensor.Tensor, error) { return nil, cause }}
		inBubble(t, f, Options{}, func(b *bench) {
			if a := b.send(b.Context(), request(writes, fake.Floats(tensor.Shape{1, 1}, 1))); a.err == nil {
				b.Error("no error")
			}
			b.ran(1)
		})
	}
}

func TestErrorsHaveAMessageForClients(t *testing.T) {
	writes := fake.Signature("writes", tensor.Float, 1, 1)
	writes.Writes = true
	for name, c := range map[string]struct {
		err  error
		code inference.Code
		msg  string
	}{
		"death":       {errSegv, inference.Unavailable, "the worker of model m version 3 ended while it held this request (worker died: signal: segmentation fault)"},
		"timeout":     {fmt.Errorf("%w: 30s", inference.ErrRunTimeout), inference.DeadlineExceeded, "was ended for taking too long over this request (run passed run_timeout: 30s)"},
		"typed death": {&inference.Error{Code: inference.Unavailable, Msg: "killed for memory", Err: errSegv}, inference.Unavailable, "(killed for memory)"},
		"closed":      {inference.ErrClosed, inference.Unavailable, "send it again"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake.Runner{Graph: func(fake.Record) ([]*tensor.Tensor, error) { return nil, c.err }}
			inBubble(t, f, Options{}, func(b *bench) {
				e := b.fails(b.send(b.Context(), request(writes, fake.Floats(tensor.Shape{1, 1}, 1))), c.code, inference.ReasonWorker)
				if !strings.Contains(e.Msg, c.msg) || !errors.Is(e, c.err) {
					b.Errorf("%v", e)
				}
			})
		})
	}
	f := &fake.Runner{Graph: func(fake.Record) ([]*tensor.Tensor, error) { return nil, nil }}
	inBubble(t, f, Options{}, func(b *bench) {
		if e := b.fails(b.send(b.Context(), rows(1)), inference.Internal, ""); !strings.Contains(e.Msg, "0 outputs") {
			b.Error(e)
		}
	})
}

// exhausted is a graph that has memory for so many rows.
func exhausted(most int64) func(fake.Record) ([]*tensor.Tensor, error) {
	return func(r fake.Record) ([]*tensor.Tensor, error) {
		if r.Rows() > most {
			return nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonRuntime, "OOM when allocating tensor")
		}
		return fake.Echo(r)
	}
}

func TestMemoryErrorIsRunAgainInHalvesAndThenSingly(t *testing.T) {
	eight := func() (reqs []*inference.Request) {
		for i := range 9 {
			reqs = append(reqs, rows(float32(i)))
		}
		return reqs
	}
	for most, want := range map[int64][]int64{4: {1, 8, 4, 4}, 2: {1, 8, 4, 4, 1, 1, 1, 1, 1, 1, 1, 1}} {
		inBubble(t, &fake.Runner{Latency: always(ms), Graph: exhausted(most)}, Options{}, func(b *bench) {
			as := b.sendAll(eight()...)
			settle(100 * ms)
			for i, a := range as {
				b.want(a, float32(i))
			}
			n := len(b.f.Records())
			if most == 4 {
				b.ran(want...)
			} else if n > len(want) {
				b.Errorf("%d runs, want at most %d", n, len(want))
			}
			// Runs stay small for a while, and then not.
			b.sendAll(eight()...)
			settle(100 * ms)
			if r := b.f.Records()[n+1]; r.Rows() > 4 {
				b.Errorf("%d rows right after the memory error", r.Rows())
			}
			settle(memoryPause)
			n = len(b.f.Records())
			b.sendAll(eight()...)
			settle(100 * ms)
			if r := b.f.Records()[n+1]; r.Rows() != 8 {
				b.Errorf("%d rows, want 8: the limit is over", r.Rows())
			}
		})
	}
	// One request that alone is too large gets the error.
	inBubble(t, &fake.Runner{Graph: exhausted(2)}, Options{}, func(b *bench) {
		b.fails(b.send(b.Context(), rows(1, 2, 3)), inference.ResourceExhausted, inference.ReasonRuntime)
		b.ran(3)
	})
	// What only padding made too large runs without.
	inBubble(t, &fake.Runner{Graph: exhausted(3)}, Options{Policy: Policy{AllowedBatchSizes: []int64{4}}}, func(b *bench) {
		b.want(b.send(b.Context(), rows(1, 2, 3)), 1, 2, 3)
		b.ran(4, 3)
	})
}

// A graph that reduces over the batch, or answers with a scalar, is found out by its first joined run.
func TestSignatureThatReducesIsRunSingly(t *testing.T) {
	sum := func(shape tensor.Shape) func(r fake.Record) ([]*tensor.Tensor, error) {
		return func(r fake.Record) ([]*tensor.Tensor, error) {
			total := float32(0)
			for _, v := range fake.Values(r.Inputs[0]) {
				total += v
			}
			return []*tensor.Tensor{fake.Floats(shape, total)}, nil
		}
	}
	for name, shape := range map[string]tensor.Shape{"scalar": nil, "one row": {1, 1}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &fake.Runner{Latency: always(ms), Graph: sum(shape)}, Options{MaxRows: 4}, func(b *bench) {
				as := b.sendAll(rows(1), rows(2), rows(3, 4))
				settle(10 * ms)
				b.want(as[0], 1)
				b.want(as[1], 2)
				b.want(as[2], 7)
				n := len(b.f.Records())
				as = b.sendAll(rows(1), rows(2), rows(3), rows(1, 1, 1, 1, 1, 1))
				settle(10 * ms)
				b.want(as[2], 3)
				b.want(as[3], 6)
				if got := len(b.f.Records()) - n; got != 4 {
					b.Errorf("%d runs for 4 requests", got)
				}
			})
			// A large request was cut before anybody knew: it is run again, whole.
			inBubble(t, &fake.Runner{Latency: always(ms), Graph: sum(shape)}, Options{MaxRows: 4}, func(b *bench) {
				as := b.sendAll(rows(1, 2, 3, 4, 5, 6))
				settle(10 * ms)
				b.want(as[0], 21)
			})
			// A padded one is run again without.
			inBubble(t, &fake.Runner{Latency: always(ms), Graph: sum(shape)}, Options{Policy: Policy{AllowedBatchSizes: []int64{4}}}, func(b *bench) {
				as := b.sendAll(rows(1, 2, 3))
				settle(10 * ms)
				b.want(as[0], 6)
			})
		})
	}
}

// What warm-up has found to mix rows is neither joined nor split.
func TestSignatureThatMixesRowsIsRunSingly(t *testing.T) {
	inBubble(t, &fake.Runner{Latency: always(ms)}, Options{MaxRows: 2, Singly: map[string]bool{"serving_default": true}}, func(b *bench) {
		b.sendAll(rows(1), rows(2), rows(3, 4, 5))
		settle(10 * ms)
		if got := len(b.f.Records()); got != 3 {
			b.Errorf("%d runs for 3 requests", got)
		}
	})
}

// The parts' outputs differ in a dimension that depends on the values: only the whole request's answer is right.
func TestPartsThatDoNotFitTogether(t *testing.T) {
	f := &fake.Runner{Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
		v := fake.Values(r.Inputs[0])
		width := int64(v[len(v)-1])
		return []*tensor.Tensor{fake.Floats(tensor.Shape{r.Rows(), width}, make([]float32, r.Rows()*width)...)}, nil
	}}
	inBubble(t, f, Options{MaxRows: 2}, func(b *bench) {
		a := b.send(b.Context(), rows(1, 2, 3, 4))
		if b.want(a, make([]float32, 16)...); !a.shape.Equal(tensor.Shape{4, 4}) {
			b.Error(a.shape)
		}
	})
}

// Callers share one result without copies, and it is released when the last of them is done.
func TestResultIsSharedUntilTheLastRelease(t *testing.T) {
	f := &fake.Runner{Latency: always(ms)}
	inBubble(t, f, Options{}, func(b *bench) {
		b.send(b.Context(), rows(0))
		responses := make(chan *inference.Response, 2)
		for i := range 2 {
			go func() {
				resp, err := b.Predict(b.Context(), rows(float32(i)))
				if err != nil {
					b.Error(err)
				}
				responses <- resp
			}()
		}
		settle(10 * time.Millisecond)
		one, two := <-responses, <-responses
		if one.Outputs[0].Data = one.Outputs[0].Data[:4]; f.Lent() != 1 {
			b.Errorf("%d results lent, want 1", f.Lent())
		}
		one.Release()
		one.Release()
		if f.Lent() != 1 {
			b.Error("released while a caller has it")
		}
		two.Release()
	})
}
