// Package tfrt is TensorFlow's C API behind Go types: it finds and opens libtensorflow, loads SavedModels and runs their signatures.
//
// Invariants:
//  1. The library is opened with dlopen, once per process, and never linked: the binary builds and starts without TensorFlow. Whatever can
//     be found wrong with a library is found by [Find], before dlopen, for TensorFlow aborts the process where a CPU is too old.
//  2. Every C object is freed by the function that made it, on every path. No finalizer frees anything of ours.
//  3. Input memory is lent to TensorFlow, not copied, and may be reused only when TensorFlow has let go of it, which can be long after the
//     call: see [Late]. Output memory is lent to the caller for the length of a callback.
//  4. C never calls Go. A call blocks one thread and cannot be cancelled.
//  5. A thread leaves every call with the floating-point mode that it came with.
//
// The worker process runs it, and the core only with isolation none. Nothing else in the repository imports "C".
package tfrt

//go:generate go run ./shimgen
