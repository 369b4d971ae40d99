// Package rest answers TensorFlow Serving's REST API over an [api.Service]: predict in row and column form, model status, metadata,
// and the list of models that TensorFlow Serving never had.
//
// Invariants:
//  1. Status codes, texts and the layout of every answer are TensorFlow Serving's where it has one; Content-Type is always
//     application/json.
//  2. No more of a body than the limit is ever held in memory, compressed or not, and the tensors made of it are bounded too.
//  3. A request is read by two readers. [decoder] is fast, writes numbers straight into tensor memory and gives up without a reason
//     on anything unusual; the explainer is slow, holds no tree, takes time linear in the body, and finds the very error that
//     TensorFlow Serving would have named first. The explainer finds an error in exactly those documents on which the decoder gives up.
//  4. Every request under /v1/ is observed exactly once, but for the OPTIONS that browsers send ahead.
//  5. Memory of a request is used again for a later one only after Predict has returned without an error.
//
// The fast reader and the explainer take a body that ends in [sentinel] NUL bytes, so that they need no bounds of their own: a NUL is
// the end of the document, as it is in TensorFlow Serving.
//
// What lies outside /v1/ is not this package's: the appliance mounts it beside the handler. Mount the handler as the fallback for all
// paths rather than under "/v1/": the words of this API may be in any case, and [http.ServeMux] patterns may not.
package rest
