// Package access decides who may do what at the doors: bearer tokens and their scopes, the peers of unix sockets, failed logins, and how many
// connections there may be and how slow. It knows no wire format but the Authorization header.
//
// Invariants:
//  1. A token's secret is shown once, where it is made, and is nowhere else: not in the file, which has SHA-256 sums, not in a log line, an error, a
//     status or a metric. Whoever prints what a client sent in its Authorization header has a bug.
//  2. A nil *Guard asks nobody anything and a nil *Grant may do everything, so that doors without access control pay a comparison with nil.
//  3. Closed stays closed: a tokens file that is missing or empty lets nobody in, and one that is damaged changes nothing of what was in force.
//  4. What a token may not see is answered as what is not there, where that would tell that it is there: jobs and sessions of others.
//
// Every method may be called from anywhere.
package access
