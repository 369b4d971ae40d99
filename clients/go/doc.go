// doc.go: what the package is.

// Package inferd is the client of an inferd appliance for what must arrive: jobs, which the appliance keeps on disk until their results are
// fetched, and streams, many predictions over one WebSocket that comes back by itself. Plain predictions need no package of ours: any client of
// TensorFlow Serving's REST or gRPC makes them.
//
//	c, err := inferd.New("http://box:8501", inferd.Options{})
//	job, err := c.Submit(ctx, inferd.Submission{Model: "scale", Body: []byte(`{"instances": [[1.0]]}`)})
//	answer, err := c.Result(ctx, job.ID) // waits
//
//	s := c.Stream(inferd.StreamOptions{})
//	defer s.Close()
//	err = s.Send(ctx, inferd.Request{Model: "scale", Instances: [][]float32{{1}}, Durable: true})
//	result, err := s.Recv(ctx) // from another goroutine when much is in flight
//	s.Ack(result)              // once it is kept; until then the appliance keeps it
//
// Invariants:
//  1. What was accepted is answered once: a durable request is sent again until the appliance has it on disk, under the same id; its result
//     comes until it was acknowledged, and Recv passes it on once.
//  2. Nothing is buffered without bound: Send waits for the appliance's credits and for Recv, unless the request may be dropped.
//  3. A request that is neither Durable nor Retry is sent at most once. When the connection is lost with it in flight, Recv says ErrLost.
//  4. Whoever is asked to come back later does, no sooner than the appliance said, and not all at once.
//
// All methods may be called from any goroutine. The package uses nothing of the daemon's.
package inferd
