// Package inference is the vocabulary of the appliance (model, version, signature, request, error code) and the [Catalog], the set
// of live versions, where models meet requests.
//
// Invariants:
//  1. A version is immutable once published. A change is a new version number.
//  2. A [Handle] pins its version: what it lends stays usable until Release, and the version's worker ends only afterwards.
//  3. Whoever gets a [Response] or a [Result] releases it exactly once; the tensors in it are lent until then.
//  4. An error that may reach a client is an [*Error]; its Msg is safe to show and says what was sent and what to do.
//
// Only the updater publishes and retires. Everyone may acquire.
package inference
