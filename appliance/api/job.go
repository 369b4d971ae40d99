// job.go: what a request that goes into the durable queue is asked at the door.
package api

import (
	"github.com/inferd/inferd/inference"
)

// EnterDoor asks the gate alone: for a request that is not to be answered now. Its owner calls Leave. Errors are the gate's, and UNAVAILABLE while
// the appliance is stopping.
func (s *Service) EnterDoor(c Caller) (Entry, *inference.Error) {
	if err := s.stopping(); err != nil {
		return Entry{}, err
	}
	e := Entry{class: c.Class}
	if s.gate == nil {
		return e, nil
	}
	var err *inference.Error
	e.pass, err = s.gate.Enter(c.From, c.Bytes)
	return e, err
}

// Check is what Predict checks before anything runs.
func Check(v *inference.Version, req *inference.Request) *inference.Error {
	return inference.AsError(check(v, req))
}
