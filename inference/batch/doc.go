// doc.go: what the package promises.

// Package batch joins concurrent requests of one model version into fewer, larger runs, and keeps one bad request from hurting the rest.
//
// A [Batcher] stands between the catalog and a runner. Requests that come while every slot is busy wait, and leave together when a slot
// comes free: no timer is needed, and a lone caller never waits.
//
// Invariants:
//  1. Only requests of one signature that want the same outputs and have the same dimensions after the first share a run (with
//     pad_variable_length_inputs, the same number of dimensions). A request that cannot be joined runs singly.
//  2. A slot that comes free takes the most urgent request that may run: the higher class first; in a class those of clients that have not had
//     their share; among these the one that is due first. Requests that write run one at a time, in the order of arrival.
//  3. A caller gets exactly its own rows, and an answer no later than its context ends. One that leaves its queue costs no run; one
//     that leaves a run that has begun keeps its slot until the run ends.
//  4. The inputs of a request are not read after Predict has returned.
//  5. A run that writes is never repeated. Any other is repeated at most a bounded number of times: singly after an error that one of
//     its requests may have caused, in halves after a memory error, alone and with nothing else in flight after a worker's death.
//  6. What waits is bounded by count and by bytes.
//  7. Nobody is let in who is predicted to be late (admit.go), and what waits until it is too late costs no run. A ticket's place counts until
//     it is used or left.
//  8. One that was let in gives way to nobody but a higher class, or a client that has less waiting for its weight.
//
// There is no owner goroutine: the state is lists and counters behind one mutex that is held for microseconds and never during a run, and
// whoever changes it (a caller that arrives, a run that ends, a timer) starts what may start now. An owner loop would add two goroutine
// switches to each request, which at tens of thousands of requests a second is more than all the rest of this package.
// A run has a goroutine of its own for as long as it lasts, because it may outlive every caller: at most as many as there are slots.
//
// Locks: Batcher.mu and suspects.mu are never held together, and nothing is called out to with either held.
package batch
