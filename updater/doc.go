// doc.go: what the updater is and what always holds.

// Package updater makes the catalog match the models that are configured and the version folders that lie on disk, and leaves alone
// what serves when it cannot.
//
// A version goes this way: watch (a hint) -> look (the truth, in a goroutine of the model's own) -> settle (unchanged for long enough)
// -> check (the SavedModel is whole, is what the configuration asserts, is what Vet lets pass, and fits what serves) -> plan (pure)
// -> load (a bounded loader) -> prove (recorded requests, golden cases, made-up runs) -> [inference.Catalog.Publish] -> and only then is
// the version it replaces retired, drained and closed.
//
// Invariants:
//  1. Nothing is retired before what replaces it is published, except where the base path holds no version at all any more, the
//     model is no longer configured, the appliance stops, or the model's [Transition] unloads first; then it is loaded again where the
//     new version fails.
//  2. A folder is loaded only when its files were the same for the settle time (or came by one rename) and the SavedModel is whole,
//     and published only when they are still the same after the load.
//  3. No model waits for another: each has a look of its own in flight, at most one, and at most one load; whoever takes longer than
//     a bound stops counting against the shared limits. At the start what served before comes first, and the rest waits for it, for
//     startWait at most.
//  4. The owner loop touches no file, loads nothing and closes nothing. It alone writes to the catalog.
//  5. A refused version stays refused until its files change. Errors that time may cure are retried a bounded number of times.
//  6. What has been published is not reread: a change in place is reported once.
//  7. Every runner that a load returned is closed exactly once: by its servable, or directly when it never served.
//  8. With a [Journal]: a load is written down before it begins; a refusal outlives a restart until the files, the configuration or the
//     inferd change, or an operator asks; what served when inferd ended serves again, its bytes compared, before anything new is loaded.
//  9. With a [Journal]: nothing is retired for a version whose files are not yet on disk and summed up. A journal that takes nothing stops
//     nothing: it is said, and written later.
//  10. With a [Probation]: a version that takes over from another is on trial, and the other is kept loaded (or, where it had to be unloaded,
//     is not forgotten) until the verdict; a model has one trial at a time, and newer versions wait for it. A trial goes on after a restart,
//     with the old version loaded first. On a breach the requests go back before anything is unloaded, and the new version stays refused;
//     where there is nothing to go back to, nothing is taken away and it is said.
//  11. A version that is found bad after it went live (condemn) gives way only to one that serves, and no folder or kept copy of its number serves
//     again by itself until its files change or an operator asks.
//  12. With a KeepDir: what is live and the newest good version beside it lie there a second time, summed up, and nothing else does. A kept copy serves for
//     what served when inferd ended, for what an operator asked for, for a folder that cannot be used, or where nothing else can.
//  13. A worker that is started again loads the bytes that were summed up, or nothing.
//  14. With Retain: a folder is removed only behind the newest so many good versions, and never one that is wanted, live, last good, pinned, labelled or part
//     of a rollback.
//
// look, settle, plan and judge are functions of values; files are touched in scan.go, seal.go and (what is run) warmup.go and golden.go
// only, time passes in the loop only.
//
// [Controller] may be called from any goroutine. How much memory is free the integrator knows:
// [Options].Room, and Load, whose RESOURCE_EXHAUSTED is retried.
package updater
