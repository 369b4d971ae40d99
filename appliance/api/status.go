// status.go: the one table that maps codes to each protocol's status.
package api

import "github.com/inferd/inferd/inference"

// HTTPStatus is TensorFlow Serving's ToHTTPStatusCode, with 413 for what is over a size limit, 409 for what the job's state does not allow, and 507
// where there is no space left on the disk.
func HTTPStatus(e *inference.Error) int {
	switch {
	case e.Reason == inference.ReasonTooLarge:
		return 413
	case e.Reason == inference.ReasonState:
		return 409
	case e.Reason == inference.ReasonDisk && e.Code == inference.ResourceExhausted:
		return 507
	}
	switch e.Code {
	case inference.OK:
		return 200
	case inference.Canceled:
		return 499
	case inference.InvalidArgument, inference.FailedPrecondition, inference.OutOfRange:
		return 400
	case inference.DeadlineExceeded:
		return 504
	case inference.NotFound:
		return 404
	case inference.AlreadyExists, inference.Aborted:
		return 409
	case inference.PermissionDenied:
		return 403
	case inference.Unauthenticated:
		return 401
	case inference.ResourceExhausted:
		return 429
	case inference.Unimplemented:
		return 501
	case inference.Unavailable:
		return 503
	default:
		return 500
	}
}
