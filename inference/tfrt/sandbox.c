/* sandbox.c: takes from a worker what a model does not need, before the Go runtime and any other thread exist in it.
 *
 * A model is code: its graph opens files by name, and a fault in one of TensorFlow's kernels may be anything. Landlock and seccomp hold for
 * the thread that asks and for those that it makes afterwards, so they are asked for by the only thread there is: in the child of the
 * zygote before it returns from the constructor, and in a worker that was started afresh in a constructor of its own.
 *
 * Landlock says which files may be read. seccomp says which system calls are left. It forbids rather than allows, for nobody knows all that a
 * TensorFlow and a GPU driver of another version will call; but every number up to the last one that was looked at is either forbidden
 * below or harmless to others, and what the kernel gets later is unknown to the process. Everything is answered with an error and nothing with a
 * signal: an operation that fails is the request's affair, a worker that dies is everyone's. */
#define _GNU_SOURCE
#include "sandbox.h"

#include <asm/sockios.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib.h"

/* Since Linux 5.1 a system call has the same number everywhere; older headers do not have those that came later. */
enum {
	nr_pidfd_send_signal = 424,
	nr_io_uring_setup = 425,
	nr_io_uring_enter = 426,
	nr_io_uring_register = 427,
	nr_open_tree = 428,
	nr_move_mount = 429,
	nr_fsopen = 430,
	nr_fsconfig = 431,
	nr_fsmount = 432,
	nr_fspick = 433,
	nr_pidfd_open = 434,
	nr_clone3 = 435,
	nr_openat2 = 437,
	nr_pidfd_getfd = 438,
	nr_process_madvise = 440,
	nr_mount_setattr = 442,
	nr_quotactl_fd = 443,
	nr_landlock_add_rule = 445,
	nr_landlock_restrict_self = 446,
	nr_process_mrelease = 448,
	nr_fchmodat2 = 452,
	nr_last = 462, /* mseal: the last one that was looked at */
};

struct filter {
	struct sock_filter code[1024];
	int n;
};

static void put(struct filter *f, uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
	if (f->n < (int)(sizeof f->code / sizeof *f->code)) f->code[f->n] = (struct sock_filter){code, yes, no, k};
	f->n++; /* too many are noticed at the end */
}

static void load(struct filter *f, size_t offset) { put(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0); }
static void verdict(struct filter *f, uint32_t action) { put(f, BPF_RET | BPF_K, action, 0, 0); }
static uint32_t refuse(int error) { return SECCOMP_RET_ERRNO | (uint32_t)error; }

/* Arguments are looked at by their lower halves, in which everything lies that is looked for. */
static void load_arg(struct filter *f, int arg) {
	size_t low = offsetof(struct seccomp_data, args) + (size_t)arg * sizeof(uint64_t);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	low += 4;
#endif
	load(f, low);
}

/* For system call nr, always. The accumulator holds its number, here and in what follows. */
static void always(struct filter *f, long nr, uint32_t action) {
	put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 1);
	verdict(f, action);
}

/* nr may only be called with one of the values as its argument; or, with not, with none of them. Bits are looked at through mask. */
static void judge(struct filter *f, long nr, int arg, uint32_t mask, const uint32_t *values, int n, int not, int error) {
	put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, (uint8_t)(n + 4));
	load_arg(f, arg);
	put(f, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
	for (int i = 0; i < n; i++) put(f, BPF_JMP | BPF_JEQ | BPF_K, values[i], (uint8_t)(n - i), 0);
	verdict(f, not ? SECCOMP_RET_ALLOW : refuse(error));
	verdict(f, not ? refuse(error) : SECCOMP_RET_ALLOW);
}

/* nr may only be called with this kind of target, and of those for the calling thread. */
static void own(struct filter *f, long nr, uint32_t kind) {
	put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 6);
	load_arg(f, 0);
	put(f, BPF_JMP | BPF_JEQ | BPF_K, kind, 0, 2);
	load_arg(f, 1);
	put(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
	verdict(f, refuse(EPERM));
	verdict(f, SECCOMP_RET_ALLOW);
}

/* What CUDA needs beside its devices, or cuInit fails with 304: a socket of this machine by which another process of the same user could ask for
 * its memory, under a name that is no file; it may not be connected to anything, nor send to anybody. And to remove a file of that name, which
 * is told that it is not there. */
static void cuda(struct filter *f) {
	put(f, BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 7);
	load_arg(f, 0);
	put(f, BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 0, 4);
	load_arg(f, 1);
	put(f, BPF_ALU | BPF_AND | BPF_K, 15, 0, 0);
	put(f, BPF_JMP | BPF_JEQ | BPF_K, SOCK_DGRAM, 1, 0);
	verdict(f, SECCOMP_RET_ALLOW);
	verdict(f, refuse(EPERM));
	always(f, SYS_bind, SECCOMP_RET_ALLOW);
	always(f, SYS_listen, SECCOMP_RET_ALLOW);
	always(f, SYS_unlinkat, refuse(ENOENT));
#ifdef SYS_unlink
	always(f, SYS_unlink, refuse(ENOENT));
#endif
}

#define LEN(a) ((int)(sizeof(a) / sizeof *(a)))
#define ANY 0xffffffffu

static const long wanted[] = { /* first, for they are what a run is made of */
	SYS_read, SYS_write, SYS_futex, SYS_sched_yield, SYS_nanosleep, SYS_clock_gettime, SYS_epoll_pwait, SYS_madvise, SYS_mmap, SYS_munmap,
	SYS_rt_sigreturn, SYS_sendmsg, SYS_recvmsg,
};

/* Answered with EPERM. */
static const long forbidden[] = {
	/* other programs and processes; a process of its own */
	SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, nr_pidfd_open, nr_pidfd_getfd,
	nr_pidfd_send_signal, nr_process_madvise, nr_process_mrelease, SYS_tkill, SYS_migrate_pages, SYS_move_pages, SYS_setpgid, SYS_setsid,
	/* the network, sockets of this machine among it */
	SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4,
	/* what processes share by name */
	SYS_shmget, SYS_shmat, SYS_shmctl, SYS_semget, SYS_semop, SYS_semctl, SYS_semtimedop, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl,
	SYS_mq_open, SYS_mq_unlink, SYS_add_key, SYS_request_key, SYS_keyctl,
	/* the kernel's insides */
	SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, nr_io_uring_setup, nr_io_uring_enter, nr_io_uring_register, SYS_open_by_handle_at,
	SYS_name_to_handle_at, SYS_inotify_init1, SYS_inotify_add_watch, SYS_fanotify_init, SYS_fanotify_mark, SYS_lookup_dcookie, SYS_syslog,
	/* the machine */
	SYS_setns, SYS_unshare, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, nr_open_tree, nr_move_mount, nr_fsopen, nr_fsconfig,
	nr_fsmount, nr_fspick, nr_mount_setattr, SYS_swapon, SYS_swapoff, SYS_reboot, SYS_kexec_load, SYS_kexec_file_load, SYS_init_module,
	SYS_finit_module, SYS_delete_module, SYS_acct, SYS_quotactl, nr_quotactl_fd, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex,
	SYS_clock_adjtime, SYS_sethostname, SYS_setdomainname, SYS_vhangup, SYS_sync,
	/* being somebody else */
	SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid, SYS_setfsgid, SYS_capset,
#ifdef SYS_fork
	SYS_fork, SYS_vfork,
#endif
#ifdef SYS_iopl
	SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_inotify_init, SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl,
#endif
};

/* Changes of files by name, which Landlock covers in part, and which are as well forbidden where there is none. Answered with EACCES, which
 * TensorFlow turns into PERMISSION_DENIED with words for it. What is open already may be changed: there is nothing but shared memory. */
static const long changes[] = {
	SYS_truncate, SYS_mkdirat, SYS_unlinkat, SYS_renameat2, SYS_linkat, SYS_symlinkat, SYS_mknodat, SYS_fchmod, SYS_fchmodat, nr_fchmodat2,
	SYS_fchown, SYS_fchownat, SYS_utimensat, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr,
#ifdef SYS_renameat
	SYS_renameat,
#endif
#ifdef SYS_creat
	SYS_creat, SYS_mkdir, SYS_rmdir, SYS_unlink, SYS_rename, SYS_link, SYS_symlink, SYS_mknod, SYS_chmod, SYS_chown, SYS_lchown, SYS_utime,
	SYS_utimes, SYS_futimesat,
#endif
};

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* Makes the filter for this process. */
static void make(struct filter *f, int what) {
	const uint32_t self[] = {(uint32_t)getpid()}, nobody_else[] = {0, self[0]}, calling[] = {0};

	load(f, offsetof(struct seccomp_data, arch));
	put(f, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
	verdict(f, SECCOMP_RET_KILL_PROCESS); /* the 32-bit system calls, which have other numbers */
	load(f, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < LEN(wanted); i++) always(f, wanted[i], SECCOMP_RET_ALLOW);
	put(f, BPF_JMP | BPF_JGT | BPF_K, nr_last, 0, 1);
	verdict(f, refuse(ENOSYS)); /* and those of x32, which have a high bit */
	if (what & inferd_devices) cuda(f);
	for (int i = 0; i < LEN(forbidden); i++) always(f, forbidden[i], refuse(EPERM));
	for (int i = 0; i < LEN(changes); i++) always(f, changes[i], refuse(EACCES));

	/* Threads, no processes and no namespaces. What clone3 and openat2 are to do lies in memory, where a filter cannot look; their
	 * callers go back to clone and openat. */
	const uint32_t thread[] = {CLONE_THREAD};
	judge(f, SYS_clone, 0, CLONE_THREAD | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET,
	      thread, 1, 0, EPERM);
	always(f, nr_clone3, refuse(ENOSYS));
	always(f, nr_openat2, refuse(ENOSYS));

	/* Signals to itself: the Go runtime preempts its threads by them, and abort() is one. */
	judge(f, SYS_kill, 0, ANY, self, 1, 0, EPERM);
	judge(f, SYS_tgkill, 0, ANY, self, 1, 0, EPERM);
	judge(f, SYS_rt_sigqueueinfo, 0, ANY, self, 1, 0, EPERM);
	judge(f, SYS_rt_tgsigqueueinfo, 0, ANY, self, 1, 0, EPERM);
	const uint32_t by_descriptor[] = {F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY};
	judge(f, SYS_fcntl, 1, ANY, by_descriptor, LEN(by_descriptor), 1, EPERM);
	const uint32_t controls[] = {TIOCSTI, 0x541c /* TIOCLINUX */, FIOSETOWN, SIOCSPGRP};
	judge(f, SYS_ioctl, 1, ANY, controls, LEN(controls), 1, EPERM);

	/* Its own priority, limits and places: threads lower themselves while they load. */
	judge(f, SYS_sched_setattr, 0, ANY, calling, 1, 0, EPERM);
	judge(f, SYS_sched_setscheduler, 0, ANY, calling, 1, 0, EPERM);
	judge(f, SYS_sched_setparam, 0, ANY, calling, 1, 0, EPERM);
	own(f, SYS_setpriority, PRIO_PROCESS);
	own(f, SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */);
	judge(f, SYS_prlimit64, 0, ANY, nobody_else, 2, 0, EPERM);
	const uint32_t properties[] = {PR_SET_DUMPABLE, PR_SET_PDEATHSIG, PR_SET_MM, PR_SET_PTRACER};
	judge(f, SYS_prctl, 0, ANY, properties, LEN(properties), 1, EPERM);
	const uint32_t asked[] = {0xffffffff};
	judge(f, SYS_personality, 0, ANY, asked, 1, 0, EPERM);

	if (!(what & inferd_devices)) {
		/* A driver of a GPU opens its device for writing, and places its threads. */
		judge(f, SYS_sched_setaffinity, 0, ANY, calling, 1, 0, EPERM);
		const uint32_t reading[] = {O_RDONLY};
		const uint32_t flags = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
		judge(f, SYS_openat, 2, flags, reading, 1, 0, EACCES);
#ifdef SYS_open
		judge(f, SYS_open, 1, flags, reading, 1, 0, EACCES);
#endif
	}
	verdict(f, SECCOMP_RET_ALLOW);
}

/* Numbers of uapi/linux/landlock.h, which older headers do not have. */
enum { rule_path_beneath = 1, write_file = 1 << 1, read_file = 1 << 2, read_dir = 1 << 3, truncate_file = 1 << 14 };
struct path_beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

static int allow(int ruleset, const char *path, uint64_t what) {
	struct path_beneath rule = {what, open(path, O_PATH | O_CLOEXEC)};
	if (rule.parent < 0) return 0; /* no /proc, nothing to read */
	long failed = syscall(nr_landlock_add_rule, ruleset, rule_path_beneath, &rule, 0);
	if (failed && errno == EINVAL && what & truncate_file) { /* the kernel does not tell it from writing */
		rule.allowed = what & ~(uint64_t)truncate_file;
		failed = syscall(nr_landlock_add_rule, ruleset, rule_path_beneath, &rule, 0);
	}
	int error = errno;
	close(rule.parent);
	errno = error;
	return failed ? -1 : 0;
}

/* The process may read what /proc says about itself; CUDA writes the names of its threads there, and gives up where it may not. Nobody could
 * have made these rules before there was the process. */
static int allow_self(int ruleset, int what) {
	if (allow(ruleset, "/proc/self", read_file | read_dir)) return -1;
	return what & inferd_devices ? allow(ruleset, "/proc/self/task", read_file | read_dir | write_file | truncate_file) : 0;
}

/* When memory runs out, a worker goes before the core. It could not say so later. */
static void go_first(void) {
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0) return;
	if (write(fd, "500", 3) < 0) { /* it has the core's, then */
	}
	close(fd);
}

/* Some builds of TensorFlow bring LLVM's OpenMP. When it is first used it makes a file in /dev/shm, by which it would know a second copy of
 * itself in the process, and aborts where it may not. So it is used before, and the file, which a worker that is killed leaves behind, is removed. */
static int begin_openmp(struct dl_phdr_info *info, size_t size, void *unused) {
	(void)size, (void)unused;
	const char *slash = strrchr(info->dlpi_name, '/'), *name = slash ? slash + 1 : info->dlpi_name;
	if (strncmp(name, "libomp", 6) && strncmp(name, "libiomp", 7)) return 0;
	void *library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
	int (*threads)(void) = NULL;
	if (library) *(void **)&threads = dlsym(library, "omp_get_max_threads");
	if (!threads) return 0;
	threads();
	char file[96];
	snprintf(file, sizeof file, "/dev/shm/__KMP_REGISTERED_LIB_%d_%d", (int)getpid(), (int)getuid());
	unlink(file);
	return 0;
}

/* How many threads the process has; 1 where there is no /proc to tell. */
static long threads(void) {
	struct stat st; /* of a folder with one folder for each */
	return stat("/proc/self/task", &st) ? 1 : (long)st.st_nlink - 2;
}

const char *inferd_confine(int what, int ruleset) {
	if (!(what & inferd_confined)) return NULL;
	dl_iterate_phdr(begin_openmp, NULL);
	if (threads() > 1) {
		errno = EBUSY;
		return "confine a process that has several threads";
	}
	struct filter f = {.n = 0};
	make(&f, what);
	if (f.n > LEN(f.code)) {
		errno = E2BIG;
		return "make the filter of system calls";
	}
	go_first();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return "set no_new_privs";
	struct rlimit none = {0, 0};
	if (!(what & inferd_devices) && setrlimit(RLIMIT_FSIZE, &none)) return "set RLIMIT_FSIZE";
	if (what & inferd_files) {
		if (allow_self(ruleset, what)) return "allow /proc/self";
		if (syscall(nr_landlock_restrict_self, ruleset, 0)) return "restrict the process with Landlock";
		close(ruleset);
	}
	struct sock_fprog program = {(unsigned short)f.n, f.code};
	/* Without the flag older kernels turn off what speculation gains, for all that the process does from then on. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0) return NULL;
	if (errno == EINVAL && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0) return NULL;
	return "set the filter of system calls";
}

void inferd_confine_or_end(int what, int ruleset) {
	const char *why = inferd_confine(what, ruleset);
	if (!why) return;
	dprintf(2, "inferd worker: cannot %s: %s; the process ends, for a model may not run in it unconfined\n", why, strerror(errno));
	_exit(inferd_unconfined);
}

/* A worker that was started afresh. A forked one has no such variable. The library is opened here, as the zygote opens it, for what it
 * brings may lie anywhere; when it cannot be, the one who asks for it later is told why. */
__attribute__((constructor)) static void fresh(void) {
	const char *what = getenv("INFERD_CONFINE"), *library = getenv("INFERD_WORKER");
	if (!what || !library) return;
	if (*library) inferd_tf_open(library);
	inferd_confine_or_end(atoi(what), 4);
}
