// Package systemd speaks the four protocols between a service and systemd: notification, the watchdog, inherited sockets, and the journal.
//
// Invariants:
//  1. Without systemd everything works and does nothing: an empty notification path sends nothing, an interval of 0 watches nothing, and
//     no inherited sockets means that every address is bound.
//  2. A watchdog ping is sent only after everyone who was asked has answered.
//  3. No descriptor that was inherited is handed on to a child process.
//  4. No log record holds up its writer for longer than journalPatience, nor at all while the journal goes on taking none.
//
// It is not for policy: when the service is ready, who is asked, and which addresses there are is said by the caller.
package systemd
