// Package jobs moves requests through the durable queue: submit, lease, predict, store the result.
//
// Invariants:
//  1. What Submit has returned without an error is on disk, and ends in exactly one final state with at most one result.
//  2. A job is decoded and checked at the door where a version of its model can be asked; what its client got wrong is refused there.
//  3. Jobs pass the same gate and the same batchers as every request, in the lowest class, whatever their own priority is: that orders them
//     among themselves. What admission refuses goes on waiting, and costs the job no attempt.
//  4. A result is stored and its job ended in one transaction. A run whose result cannot be stored is not repeated while this process lives.
//  5. Time is the [Clock]'s: it never jumps. Nothing expires and nothing is forgotten before the machine's clock was once set.
//
// Delivery of results is once; execution is at least once: a run that the process or the machine did not survive is repeated.
//
// Every method of [Service] may be called from anywhere. Run owns the dispatcher; each job in flight has a goroutine.
package jobs
