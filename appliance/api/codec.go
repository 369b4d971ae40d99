// codec.go: a request and its answer away from the door they came by: stored, or in a frame.
package api

import "github.com/inferd/inferd/inference"

// Kind is the wire form of a request's body and of its answer. The numbers are stored with jobs and never change their meaning.
type Kind uint8

// The kinds.
const (
	JSON  Kind = 1 // the body of a REST :predict, and its answer
	Proto Kind = 2 // a tensorflow.serving.PredictRequest, and a PredictResponse
	Media Kind = 3 // a file or samples for the one input that has media; the answer is JSON
	Raw   Kind = 4 // the bytes of the one input's tensor, in row-major order, little-endian; the answer likewise
)

// Codec reads requests of one kind and writes their answers. Any number of goroutines may use it.
type Codec interface {
	// Decode reads body as a request of v. Body must stay unchanged until the call is freed. Members that it does not know are passed over.
	Decode(body []byte, v *inference.Version) (Call, *inference.Error)
}

// Call is one decoded request. It has one owner.
type Call interface {
	// Request is valid until Free. The owner fills in class, client and ticket, and no more.
	Request() *inference.Request
	// Append appends the answer as the kind's own door would write it.
	Append(dst []byte, resp *inference.Response) ([]byte, *inference.Error)
	// Free is called once, when nobody reads the request's inputs any more. After a Predict that ended with its context, never: the
	// inputs may still be read, and the collector has them.
	Free()
}
