// Package rpc speaks TensorFlow Serving's gRPC: PredictionService and ModelService, beside grpc.health.v1 and server reflection. It
// is a codec in front of [api.Service] and decides nothing about models.
//
// Invariants:
//  1. A PredictRequest is parsed by hand, once, from one contiguous buffer, and its tensors share that buffer's memory wherever the
//     wire already has their bytes (tensor_content, packed floats, strings). The buffer is freed after the answer is encoded and not
//     before.
//  2. A PredictResponse is written from the lent tensors straight into the buffer that goes to the socket; the response is released
//     before the handler returns.
//  3. The hand-written codec accepts and rejects what the generated one does, with one exception: [maxEntries].
//  4. No message over Options.MaxRequestBytes is read into memory, and no input is blown up past it by repeating its last value.
//  5. Every call of the two services is observed exactly once, also one that could not be parsed.
//
// A server that [Register] is called on must have been made with [ServerOptions]: only its codec knows the Predict messages.
package rpc
