// doc.go: what the store is and what always holds.

// Package storage keeps bytes that must survive a restart in one bbolt file. What the bytes mean is its callers' business.
//
// Invariants:
//  1. What a writing method has returned nil for is on disk (bbolt's fdatasync).
//  2. Every value carries a format number and a checksum over its key and its bytes. A value that does not fit is moved to the bucket
//     "damaged", reported once, and answered as if it had never been; it stops nothing else.
//  3. A file that cannot be read (cut off, overwritten, a disk that faults under the mapping) is renamed to "<path>.damaged" and a new
//     one is begun, with the last states known to this process in it. It never panics, never blocks the start, and is never deleted.
//  4. One process has the file at a time; the second gets [ErrLocked] after the timeout.
//  5. A file of a newer schema is left alone: [NewerError]. An older one is migrated in one transaction, after a copy of it is on disk
//     ("<path>.schema-N"), which stays until the new schema has been opened a few times over a week.
//  6. Every transaction runs with faults turned into panics and panics into errors (guard), and no slice of a mapped page leaves it.
//  7. Histories are bounded by count; values by size.
//
// [DB] has states and histories. Buckets: "meta" has the schema number; "state" one record per name; "history" a bucket of records per name,
// keyed by a big-endian sequence; "damaged" what invariant 2 moved.
//
// [Queue] has jobs, their payloads and results, in a file of its own. Further invariants:
//
//  8. One goroutine writes. Everybody who waits while it commits shares the next commit, and its fsync; nobody is answered before it, and no reader
//     sees what it has changed before it.
//  9. After a write or an fsync that failed, nothing of that transaction is acknowledged, and the file is closed, opened again and checked
//     before the next one. A second failure in a row makes the queue degraded: it takes nothing until a probe of its own, which comes at
//     most every five seconds, is on disk.
//  10. A live job is in exactly one place: ready, leased, delayed, or behind another one of its lane. A final one is in "ends" or "dead" until it is
//     forgotten. A job that ends stores its result in the same transaction.
//  11. The counts in the file are those of its jobs. [Queue.Check] holds all of this against every record.
//  12. The indexes follow from the jobs. Where a record is damaged it is set aside, and they are made anew.
//
// All methods may be called from any goroutine. States are not for large values: those are files, or payloads.
package storage
