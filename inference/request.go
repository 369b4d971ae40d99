// request.go: what a client asks of one version, what one run of the graph is, and who answers them.
package inference

import (
	"context"
	"sync/atomic"

	"github.com/inferd/inferd/inference/tensor"
)

// Request is one client's call of one signature. The api fills and checks it before anyone below sees it.
type Request struct {
	Signature *Signature
	// Inputs has one tensor per Signature.Inputs, in that order, of the declared type. They must stay unchanged until Predict has returned.
	Inputs []*tensor.Tensor
	// Outputs are indexes into Signature.Outputs, in the order wanted.
	Outputs []int
	// Alone keeps the request out of batches: its shape disagrees with the signature, so only the kernel can decide about it.
	Alone bool
	// Class and Client say how urgent the request is and whose. Ticket is the place it was promised, used up by Predict.
	Class  Class
	Client *Client
	Ticket Ticket
	// As is the call that a log of requests has it for: RecordedClassify or RecordedRegress. 0: RecordedPredict. Nobody who answers looks at it.
	As RecordedKind
}

// Response has one tensor per Request.Outputs. The tensors are lent until Release.
type Response struct {
	Outputs []*tensor.Tensor
	release func()
}

// NewResponse is a response that calls release (which may be nil) once when it is released.
func NewResponse(outputs []*tensor.Tensor, release func()) *Response {
	return &Response{Outputs: outputs, release: release}
}

// Release gives the tensors back. The tensors must not be used afterwards. Calling it again does nothing.
func (r *Response) Release() {
	if f := r.release; f != nil {
		r.release = nil
		f()
	}
}

// Servable answers requests for one loaded version: a Batcher over a Runner, or a fake in tests.
type Servable interface {
	// Predict blocks until the answer, ctx's end, or a failure, which is an *Error.
	Predict(ctx context.Context, req *Request) (*Response, error)
	// Close ends the worker. No Predict may be running: the catalog has drained the version.
	Close() error
}

// Run is one execution of the graph: one request, or several joined along the first dimension.
type Run struct {
	Signature *Signature
	Inputs    []tensor.Parts // one per Signature.Inputs; must stay unchanged until Run has returned
	Outputs   []int          // indexes into Signature.Outputs
	// Copied, when not nil, is called by the runner (once, from any goroutine, not blocking) as soon as the inputs have been copied: the
	// run is about to begin and they are not read again. Without it nobody can tell a run that waits for its worker from one that has
	// begun, so a caller who leaves early would have to end the run for its batch-mates too.
	Copied func()
}

// Result has one tensor per Run.Outputs, lent until Release.
type Result struct {
	Outputs []*tensor.Tensor
	refs    atomic.Int64
	release func()
}

// NewResult is a result with one reference; release (which may be nil) is called when the last one is gone.
func NewResult(outputs []*tensor.Tensor, release func()) *Result {
	r := &Result{Outputs: outputs, release: release}
	r.refs.Store(1)
	return r
}

// Retain adds n references, for the batch-mates who share the result.
func (r *Result) Retain(n int) { r.refs.Add(int64(n)) }

// Release drops one reference.
func (r *Result) Release() {
	if r.refs.Add(-1) == 0 && r.release != nil {
		r.release()
	}
}

// Runner runs a loaded version: a supervised worker process, or the runtime in this process (isolation none).
type Runner interface {
	// Run blocks until the run ends, the worker dies (an error that wraps ErrWorkerDied), the run passes run_timeout (an error that
	// wraps ErrRunTimeout: the worker was ended), or ctx ends. While the worker is being restarted it waits inside ctx. When ctx ends
	// during the run, the run goes on and the caller is answered with ctx's error; the inputs have been copied by then.
	Run(ctx context.Context, run *Run) (*Result, error)
	// Slots is the number of runs that may usefully be in flight at once.
	Slots() int
	Close() error
}

// Beginner is a Runner that can hand a run over and come back, so that who asks for a short run need not leave its goroutine for it.
type Beginner interface {
	// Begin hands the run over, as Run does, where that can be done at once; else nothing has happened and it returns nil.
	Begin(run *Run) Begun
}

// Begun is a run that has been handed over. One goroutine uses it at a time.
type Begun interface {
	// Poll waits for the end without sleeping, for a fraction of a millisecond at most and only where that lately paid. It reports whether
	// the run has ended.
	Poll() bool
	// Wait is the rest of Run. It is to be called once; afterwards the Begun is somebody else's.
	Wait(ctx context.Context) (*Result, error)
}
