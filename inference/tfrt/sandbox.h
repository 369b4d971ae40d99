/* sandbox.h: what a process that runs models may do. The rules for files are made by inference/worker/landlock.go, which passes them as a
 * descriptor; the rest is here. */
#ifndef INFERD_TFRT_SANDBOX_H
#define INFERD_TFRT_SANDBOX_H

/* The numbers travel from inference/worker/sandbox.go. */
enum {
	inferd_confined = 1, /* at all */
	inferd_files = 2,    /* a Landlock ruleset comes with it */
	inferd_devices = 4,  /* GPUs: their driver opens device nodes for writing */
};

/* The exit status of a process that could not be confined, and so did not start. */
enum { inferd_unconfined = 71 };

/* Confines the process, which must have one thread: those that it makes inherit it all. It never loses it again. ruleset is a descriptor,
 * which is closed, or -1. Returns NULL, or what could not be done, with errno set. */
const char *inferd_confine(int what, int ruleset);

/* The same for a worker: one that cannot be confined says so on its output and ends. */
void inferd_confine_or_end(int what, int ruleset);

#endif
