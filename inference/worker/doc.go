// Package worker runs loaded versions in processes of their own: spawning, shared tensor memory, death and restart.
//
// The core side is a [Host], which spawns, and a [Model] per loaded version, which is an inference.Runner over a supervised worker
// process. The worker side is [Main]: the same binary started again (or forked from a zygote that already has libtensorflow open), which
// gets one socket, maps the memory that the core sends over it, and calls a [Backend].
//
// A run crosses the border once each way. The core writes the inputs into an *area* (a sealed memfd) and puts the run on the submission
// ring; one of the worker's callers, each a locked thread, takes it, runs it in place, copies the outputs into a second area and puts a
// completion on the other ring. A doorbell (a pipe) is rung only for a side that said it sleeps. Areas are handed out in power-of-two
// sizes, reused while there is traffic and given back to the system when it stops.
//
// Invariants:
//  1. The core trusts nothing that a worker can write. What it reads from shared memory is copied once into private memory and checked
//     there; its own indexes are never read back. A worker that breaks the protocol is killed and reported.
//  2. Memory is created and sealed (shrink, grow, seal) by the core, so no access of the core can fault.
//  3. No call of the core can be made to block for good by a worker: doorbells are pipes of which each side has its own end with its own
//     flags (an eventfd's would be shared), and writes to the control socket have a deadline.
//  4. A worker ends with the core: the control socket ends, and the kernel sends SIGKILL when the thread that spawned dies. The zygote's
//     death ends no worker, for a forked worker is the core's own child (CLONE_PARENT).
//  5. An area has one owner at a time: the free list, a run, a result, or nobody (the core has let go of it). An area that TensorFlow
//     keeps after a run is never used again by the core; the worker unmaps it when TensorFlow frees it.
//  6. Every run is answered: by its completion, by ctx, by the worker's death, or at RunTimeout. A run is never submitted twice.
//
// Locks: unit.mu before process.mu before arena.mu; process.reapMu before process.mu. Nothing calls out with one of them held.
package worker
