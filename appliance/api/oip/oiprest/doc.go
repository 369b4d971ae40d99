// Package oiprest answers the Open Inference Protocol over HTTP, below /v2: health, metadata, inference with JSON and with binary tensors, statistics and the model
// repository. What is not about HTTP is package oip's.
//
// Invariants:
//  1. A request is let in before its body is read, with the class and deadline of its header; what its parameters say of them counts from then on.
//  2. No more of a body than the limit is ever held in memory, compressed or not, and the tensors made of it are bounded too.
//  3. Tensors that were sent raw share the memory of the body. Memory of a request is used again for a later one only after Predict has returned without an error.
//  4. Every error is {"error": "..."} with the status of the api's table. Every request but those for health is observed exactly once.
package oiprest
