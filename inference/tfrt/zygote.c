/* zygote.c: a process that has libtensorflow open and forks workers.
 *
 * The binary runs as a zygote when INFERD_ZYGOTE is in its environment, with the library's path (empty: none). All of it happens in an ELF
 * constructor, before the Go runtime exists: only then is the process one thread that may be forked. A forked child returns from the
 * constructor, the Go runtime starts in it as in any new process, and its main finds INFERD_WORKER in the environment instead.
 *
 * A child is made with CLONE_PARENT, so that it is the core's child and not the zygote's: the core waits for it itself, it gets its
 * PDEATHSIG from the core's thread, and the zygote may die at any time without harm to it. glibc's fork() cannot do that. What fork() does
 * beyond the system call is for processes with several threads, but for the thread's own id, which the kernel writes where glibc keeps it. */
#define _GNU_SOURCE
#include "zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib.h"
#include "sandbox.h"

#define ZYGOTE "INFERD_ZYGOTE"
#define WORKER "INFERD_WORKER"
_Static_assert(sizeof ZYGOTE == sizeof WORKER, "one replaces the other in place");

enum { control = 3 }; /* the zygote's socket, and a worker's */

static int answer(int32_t pid, const char *text) {
	struct inferd_zygote_answer a = {.pid = pid};
	size_t n = strnlen(text, sizeof a.text);
	memcpy(a.text, text, n);
	return send(control, &a, sizeof a.pid + n, MSG_NOSIGNAL) >= 0;
}

/* Reads a request and its descriptors; the ruleset is -1 where none comes. Returns 0 when the core has gone or says what cannot be understood. */
static int receive(struct inferd_zygote_request *request, int fds[3]) {
	union {
		char space[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} rights;
	struct iovec part = {request, sizeof *request};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
	ssize_t n;
	memset(request, 0, sizeof *request);
	do n = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	struct cmsghdr *c = n < 8 ? NULL : CMSG_FIRSTHDR(&message);
	size_t sent = request->confine & inferd_files ? 3 : 2;
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sent * sizeof(int))) return 0;
	fds[2] = -1;
	memcpy(fds, CMSG_DATA(c), sent * sizeof(int));
	return 1;
}

/* Forks a child of our own parent. Returns twice, like fork. */
static pid_t fork_beside(void) {
	int *tid = NULL; /* where glibc keeps the thread's id: what it told the kernel with set_tid_address */
	unsigned long flags = CLONE_PARENT | SIGCHLD;
	if (prctl(PR_GET_TID_ADDRESS, &tid, 0, 0, 0) == 0 && tid) flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
#if defined(__x86_64__)
	return (pid_t)syscall(SYS_clone, flags, 0UL, NULL, tid, 0UL);
#else
	return (pid_t)syscall(SYS_clone, flags, 0UL, NULL, 0UL, tid);
#endif
}

/* Makes the child what exec would have made it, and lets it go on into the Go runtime. */
static void become_worker(char *environment, const struct inferd_zygote_request *request, const int fds[3]) {
	char name[sizeof request->name + 1] = "";
	memcpy(name, request->name, sizeof request->name);
	if (*name) prctl(PR_SET_NAME, name, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != request->core) _exit(0); /* the core died before the line above */

	if (dup2(fds[0], control) < 0 || dup2(fds[1], 1) < 0 || dup2(fds[1], 2) < 0) _exit(4);
	close(fds[0]);
	close(fds[1]);
	inferd_confine_or_end(request->confine, fds[2]);
	memcpy(environment, WORKER, sizeof WORKER - 1);
}

__attribute__((constructor)) static void zygote(void) {
	const char *library = getenv(ZYGOTE);
	if (!library) return;
	/* Go reads the environment where the kernel put it, not through setenv: so the variable is renamed where it lies. */
	char *environment = (char *)library - sizeof ZYGOTE;

	/* The core ends us; a Ctrl-C at the terminal that we share with it must not. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);

	const char *why = *library ? inferd_tf_open(library) : NULL;
	if (why) dprintf(2, "zygote: %s\n", why);
	if (!answer(why ? -1 : 0, why ? why : "") || why) _exit(why ? 3 : 0);

	struct inferd_zygote_request request;
	int fds[3];
	while (receive(&request, fds)) {
		pid_t child = fork_beside();
		if (child == 0) {
			become_worker(environment, &request, fds);
			return;
		}
		int error = errno;
		close(fds[0]);
		close(fds[1]);
		if (fds[2] >= 0) close(fds[2]);
		if (!answer(child > 0 ? child : -1, child > 0 ? "" : strerror(error))) break;
	}
	_exit(0);
}
