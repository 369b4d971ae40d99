// Package reqlog keeps a share of the requests in files: TensorFlow Serving's PredictionLogs in TFRecord files, or lines of JSON.
//
// Invariants:
//  1. A request never waits for the log. What cannot be handed to the one goroutine that writes is dropped, and counted.
//  2. What waits to be written is bounded in bytes and in number, and so is what lies on disk, in bytes and in age.
//  3. A file under its final name is whole: it was written under another one, and is renamed when it is finished. What a crash left is cut to its
//     whole records and finished by the next start.
//  4. A TFRecord file has no more records than a warm-up may have, and only requests that were answered, so that it can be one.
//  5. A disk that is full or fails costs records, never requests; the log goes on when the disk does.
//
// It is not for what must not be lost: nothing is made durable, and a crash takes what was not flushed.
package reqlog
