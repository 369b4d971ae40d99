// record.go: requests that are kept for later, whatever door they came by.
package api

import (
	"context"
	"time"

	"github.com/inferd/inferd/inference"
)

// Recorder keeps a share of the requests. Any number of goroutines call it, each while a request waits, so it must not block.
type Recorder interface {
	// Wants reports whether this one of the version's requests is to be kept.
	Wants(v *inference.Version) bool
	// Keep is called once with each request that was wanted, when it has ended: with its response, or with its error. It copies what it needs
	// of them before it returns.
	Keep(v *inference.Version, req *inference.Request, resp *inference.Response, err *inference.Error, took time.Duration)
}

func (s *Service) recorded(ctx context.Context, h *inference.Handle, req *inference.Request) (*inference.Response, error) {
	began := time.Now()
	resp, err := s.predict(ctx, h, req)
	var known *inference.Error
	if err != nil {
		known = inference.AsError(err)
	}
	s.records.Keep(h.Version(), req, resp, known, time.Since(began))
	return resp, err
}
