// Package conform asks the same thing over every protocol that inferd speaks, and compares what comes back. Its table of cases is in cases_test.go:
//
//	go test ./tools/conform
//
// A case is a request in no protocol's words, and the answer or the error that it must get everywhere. Where protocols must differ, for TensorFlow
// Serving or the Open Inference Protocol has it so, the case says which, and why.
package conform

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Request is one prediction.
type Request struct {
	Method                  string        // "": predict
	Examples                []Example     // of Classify and Regress, which have no Inputs
	Deadline                time.Duration // 0: none is named; each protocol has its own way
	Model, Label, Signature string
	Version                 int64 // 0: none is named
	Inputs                  []Input
	Outputs                 []string // those that are wanted; none: all
	Priority                string
	Token                   string // "": the request has none
	Garbage                 bool   // the body is cut off in the middle
	Large                   int    // the body is at least so long
}

// Input is a named tensor.
type Input struct {
	Name   string
	Tensor *tensor.Tensor
}

// Answer is what came of it.
type Answer struct {
	Outputs map[string]string // each as Text writes it; nil of an error
	Code    inference.Code    // 0 where the protocol tells a status of HTTP instead
	Status  int               // of HTTP, 0 where the protocol has none
	Reason  string            // "" where it is not told
	Text    string            // of the error
	Closed  int               // the code with which a WebSocket was closed over it
}

func (a *Answer) String() string {
	if a.Outputs != nil {
		return fmt.Sprintf("%v", a.Outputs)
	}
	return fmt.Sprintf("code %v, status %d, reason %q, closed %d: %.300s", a.Code, a.Status, a.Reason, a.Closed, a.Text)
}

// Door is a way to ask.
type Door struct {
	Name string
	Kind Kind
	Ask  func(ctx context.Context, r *Request) (*Answer, error)
	// Mute says why the door does not tell a reason, and neither a code nor a status where an error has none of either; "": it does.
	Mute string
	// Local: the kernel tells who asks, so tokens do not count.
	Local bool
}

// Kind is a protocol. Doors of one kind differ in what carries it.
type Kind string

// The protocols.
const (
	REST     Kind = "TensorFlow Serving, REST"
	GRPC     Kind = "TensorFlow Serving, gRPC"
	OIPREST  Kind = "Open Inference Protocol, REST"
	OIPGRPC  Kind = "Open Inference Protocol, gRPC"
	Stream   Kind = "WebSocket"
	RESTJob  Kind = "job, REST"
	GRPCJob  Kind = "job, gRPC"
	maxTries      = 1000
)

// Server is an inferd that is asked.
type Server struct {
	HTTP       string // base URL
	Client     *http.Client
	HTTP2      *http.Client // speaks it without TLS
	GRPC       *grpc.ClientConn
	GRPCSocket *grpc.ClientConn
	GRPCOnHTTP *grpc.ClientConn
}

// Doors are all of them.
func (s *Server) Doors() []Door {
	return slices.Concat(s.restDoors(), s.grpcDoors(), s.webDoors(), s.oipDoors(), s.streamDoors(), s.jobDoors())
}

// Text is a tensor's shape and elements. Floating point numbers are written as 32 bits have them, which is what all protocols carry.
func Text(t *tensor.Tensor) string {
	var e []string
	if t.DType == tensor.String {
		for _, s := range t.Strings {
			e = append(e, strconv.Quote(string(s)))
		}
	} else {
		for i := 0; i < len(t.Data); i += t.DType.Size() {
			e = append(e, canonical(element(t, i)))
		}
	}
	return text(t.Shape, e)
}

func text(shape []int64, elements []string) string {
	all := fmt.Sprintf("%v %s", shape, strings.Join(elements, " "))
	if len(all) > 1<<12 {
		return fmt.Sprintf("%v %d elements, of which the last is %s", shape, len(elements), elements[len(elements)-1])
	}
	return all
}

// canonical writes a number of JSON so that equal ones look the same.
func canonical(number string) string {
	switch number {
	case "NaN", "Infinity", "-Infinity", "true", "false":
		return number
	}
	if !strings.ContainsAny(number, ".eE") {
		return number
	}
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil:
		return "no number: " + number
	case f == 0 && math.Signbit(f):
		return "-0"
	}
	return strconv.FormatFloat(float64(float32(f)), 'g', -1, 32)
}
