// errors.go: the closed set of codes and the one error type that may reach a client.
package inference

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Code is a gRPC status code (google.rpc.Code), the closed set that every protocol maps from.
type Code int

// The codes, with gRPC's numbers.
const (
	OK                 Code = 0
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

var codeNames = [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
	"UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// String is the name that TensorFlow and google.rpc print.
func (c Code) String() string {
	if c < 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("CODE_%d", int(c))
	}
	return codeNames[c]
}

// What a caller branches on.
var (
	// ErrWorkerDied: the worker process ended while the run was in flight (or before it could begin).
	ErrWorkerDied = errors.New("worker died")
	// ErrRunTimeout: the run passed run_timeout, and its worker was ended for it.
	ErrRunTimeout = errors.New("run passed run_timeout")
	// ErrStarved: a worker of low priority got no processor, for others kept them all busy. At normal priority it would have.
	ErrStarved = errors.New("no processor at low priority")
	// ErrNoRuntime: there is no TensorFlow to load a version with, which is no fault of the version.
	ErrNoRuntime = errors.New("no TensorFlow runtime")
	// ErrUnconfined: models are to be confined and this kernel cannot, which is no fault of the version.
	ErrUnconfined = errors.New("models cannot be confined")
	// ErrClosed: the object was closed.
	ErrClosed = errors.New("closed")
)

// Reasons: the machine-readable cause beside a code, for metrics and headers. The list is closed; others are added here.
const (
	ReasonInput     = "input"      // the request itself
	ReasonModel     = "model"      // unknown model, version, label or signature
	ReasonQueueFull = "queue_full" // too many wait
	ReasonDeadline  = "deadline"   // no time left
	ReasonTooLarge  = "too_large"  // over a size limit
	ReasonWorker    = "worker"     // the worker died, hangs or is being restarted
	ReasonSuspect   = "suspect"    // this very request has killed the worker before
	ReasonRuntime   = "runtime"    // TensorFlow's own error
	ReasonDevice    = "device"     // the runtime does not find the GPU that it was to use
	ReasonDraining  = "draining"   // the appliance is stopping
	ReasonMemory    = "memory"     // no memory for it
	ReasonRate      = "rate"       // this client sends more than it may
	ReasonLoading   = "loading"    // the version is being loaded
	ReasonDisk      = "disk"       // no space left for what must be kept, or its disk fails
	ReasonJob       = "job"        // unknown job or session
	ReasonState     = "state"      // the job is in a state that does not allow it
	ReasonLogin     = "login"      // no token, or one that is not valid
	ReasonScope     = "scope"      // the token is not for this
	ReasonDropped   = "dropped"    // a newer input of a live source took its place
)

// Error is what a client may see. Msg is the exact text on the wire; Err is the cause, which stays in the log.
type Error struct {
	Code    Code
	Model   string
	Version int64
	Reason  string
	Msg     string
	Err     error
	// RetryAfter is when it is worth trying again, as far as that is known; 0 when it is not.
	RetryAfter time.Duration
}

// Errorf is an *Error with a formatted message.
func Errorf(c Code, reason, format string, args ...any) *Error {
	return &Error{Code: c, Reason: reason, Msg: fmt.Sprintf(format, args...)}
}

// Error has the message and the cause, for logs.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Code.String() + ": " + e.Msg + ": " + e.Err.Error()
	}
	return e.Code.String() + ": " + e.Msg
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Message is safe for a client: it names what they sent and what to do.
func (e *Error) Message() string { return e.Msg }

// AsError turns any error into an *Error: context ends become DEADLINE_EXCEEDED and CANCELLED, everything unknown INTERNAL.
func AsError(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Reason: ReasonDeadline, Msg: "Timed out waiting for notification", Err: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Reason: ReasonDeadline, Msg: "The client cancelled the request", Err: err}
	default:
		return &Error{Code: Internal, Msg: err.Error(), Err: err}
	}
}
