// status.go: the one table that maps codes to each protocol's status.
package api

import "github.com/inferd/inferd/inference"

// HTTPStatus is TensorFlow Serving's ToHTTPStatusCode, with 413 for what is over a size limit.
func HTTPStatus(e *inference.Error) int {
	if e.Reason == inference.ReasonTooLarge {
		return 413
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
