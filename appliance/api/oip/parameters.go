// parameters.go: the parameters of a request.
package oip

import (
	"math"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// Parameters are what a request's parameters ask for. The zero Parameters ask for nothing.
type Parameters struct {
	Signature string        // "signature_name"
	Timeout   time.Duration // "timeout", which is in microseconds; 0: the model's own
	Class     inference.Class
	HasClass  bool // "priority" was there and not 0

	BinaryOutput bool // "binary_data_output": every output raw that does not say otherwise (over HTTP)
}

// Set takes one parameter of a request. A value is a bool, int64, uint64, float64 or string; any other is one that no parameter of ours can have. What is not known here is
// left alone, for the protocol lets clients and models agree on parameters of their own.
func (p *Parameters) Set(name string, value any) *inference.Error {
	switch name {
	case "timeout":
		us, ok := unsigned(value)
		if !ok {
			return Invalid("parameter timeout is a whole number of microseconds from 0 on; leave it out, or send 0, for the model's own")
		}
		p.Timeout = min(time.Duration(min(us, math.MaxInt64/1000))*time.Microsecond, api.MaxDeadline)
	case "priority":
		return p.priority(value)
	case "signature_name":
		s, ok := value.(string)
		if !ok {
			return Invalid("parameter signature_name is the name of a signature")
		}
		p.Signature = s
	case "binary_data_output":
		on, ok := value.(bool)
		if !ok {
			return Invalid("parameter binary_data_output is true or false")
		}
		p.BinaryOutput = on
	case "sequence_id":
		if n, ok := unsigned(value); ok && n == 0 || value == "" {
			return nil // none
		}
		return noSequences(name)
	case "sequence_start", "sequence_end":
		if value == false {
			return nil
		}
		return noSequences(name)
	}
	return nil
}

// priority is Triton's: 1 is the highest, larger numbers are lower, 0 is the model's own. The words of the classes do as well.
func (p *Parameters) priority(value any) *inference.Error {
	p.HasClass = true
	if word, ok := value.(string); ok && word != "" {
		if p.Class, ok = inference.ParseClass(word); ok {
			return nil
		}
	}
	n, ok := unsigned(value)
	switch {
	case !ok:
		return Invalid("parameter priority is 1 (interactive), 2 (normal), 3 or more (batch), 0 for none, or one of these words")
	case n == 0:
		p.HasClass = false
	case n == 1:
		p.Class = inference.Interactive
	case n == 2:
		p.Class = inference.Normal
	default:
		p.Class = inference.Bulk
	}
	return nil
}

func noSequences(name string) *inference.Error {
	return inference.Errorf(inference.Unimplemented, inference.ReasonInput,
		"parameter %s: no model here keeps a state between requests, so that there are no sequences; leave sequence_id, sequence_start and sequence_end out, and send with each request all that the model needs", name)
}

// sharedMemory are the parameters of tensors that lie elsewhere.
var sharedMemory = map[string]bool{"shared_memory_region": true, "shared_memory_offset": true, "shared_memory_byte_size": true}

// TensorParameter refuses those parameters of inputs and outputs that would be answered wrongly if they were left alone.
func TensorParameter(tensor, name string) *inference.Error {
	switch {
	case sharedMemory[name]:
		return inference.Errorf(inference.Unimplemented, inference.ReasonInput,
			"%q: parameter %s: tensors in shared memory of the client's are not read here; send them in the request", Cut(tensor), name)
	case name == "classification":
		return inference.Errorf(inference.Unimplemented, inference.ReasonInput,
			"output %q: parameter classification: there are no class labels here to answer with; ask for the output itself, and sort it", Cut(tensor))
	}
	return nil
}

// unsigned is a whole number from 0 on.
func unsigned(value any) (uint64, bool) {
	switch n := value.(type) {
	case int64:
		return uint64(n), n >= 0
	case uint64:
		return n, true
	case float64:
		return uint64(n), n >= 0 && n == math.Trunc(n) && n < 1<<53
	}
	return 0, false
}
