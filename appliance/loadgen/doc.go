// doc.go: what the package is.

// Package loadgen puts load on a server that speaks TensorFlow Serving's REST or gRPC, and says what came of it.
//
// Invariants:
//  1. In an open loop a request is due at a time that no answer can move, and its latency counts from then: a server that stalls, or a
//     generator that is held back, shows in the percentiles and is not left out.
//  2. Every request that is due within the measured time is in exactly one of: not sent, answered, refused, failed, open.
//  3. Nothing is sent before it is due, and no more than Options.InFlight requests are in flight.
//
// It knows nothing of inferd but the names of its headers. One [Generator] is used by one goroutine.
package loadgen
