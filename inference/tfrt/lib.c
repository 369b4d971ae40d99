/* lib.c: fills the shim's slots from a library opened with dlopen. */
#define _GNU_SOURCE
#include "lib.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From the generated shim: one slot per symbol, and their names one after another, each with its NUL, ended by an empty one. */
extern void *inferd_tf_slots[] __attribute__((visibility("hidden")));
extern const char inferd_tf_names[] __attribute__((visibility("hidden")));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *opened; /* guarded by lock until set, then constant */
static void *handle; /* the same */

__attribute__((format(printf, 1, 2))) static const char *say(const char *format, ...) {
	char *text = NULL;
	va_list args;
	va_start(args, format);
	int n = vasprintf(&text, format, args);
	va_end(args);
	return n < 0 ? "out of memory" : text;
}

/* Where an unfilled slot leads. A null slot would be a SIGSEGV at address 0 that names nobody. */
__attribute__((visibility("hidden"), noreturn)) void inferd_tf_missing(int slot) {
	const char *name = inferd_tf_names;
	for (; slot > 0; slot--) name += strlen(name) + 1;
	fprintf(stderr, "inferd: %s was called before a TensorFlow runtime was opened\n", name);
	abort();
}

/* Opens the library that a dlopen error names as not found, from the places where a TensorFlow package keeps it. */
static int open_missing(const char *path, const char *error) {
	const char *colon = strchr(error, ':');
	if (!colon || !strstr(colon, "cannot open shared object file")) return 0;
	int name = (int)(colon - error);
	if (name == 0 || memchr(error, '/', name)) return 0;
	const char *slash = strrchr(path, '/');
	int dir = (int)(slash - path);
	static const char *const places[] = {"", "/tensorflow.libs", "/../tensorflow.libs"};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		char candidate[PATH_MAX];
		int n = snprintf(candidate, sizeof candidate, "%.*s%s/%.*s", dir, path, places[i], name, error);
		if (n < (int)sizeof candidate && dlopen(candidate, RTLD_NOW | RTLD_LOCAL)) return 1;
	}
	return 0;
}

static const char *open_locked(const char *path) {
	if (opened) {
		if (strcmp(opened, path) == 0) return NULL;
		return say("%s is open already; one process can have one TensorFlow runtime, so %s was not opened", opened, path);
	}
	if (!strchr(path, '/')) return say("%s has no slash: the path of the library itself is needed", path);

	/* A library that was found by name satisfies the DT_NEEDED of those opened later, so each round gets one library further. */
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	for (int rounds = 0; !library && rounds < 16; rounds++) {
		char *why = strdup(dlerror());
		if (!why) return "out of memory";
		if (!open_missing(path, why)) return why;
		free(why);
		library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	}
	if (!library) return say("%s: its libraries could not be found", path);

	int slot = 0;
	for (const char *name = inferd_tf_names; *name; name += strlen(name) + 1, slot++)
		if (!dlsym(library, name)) {
			const char *why = say("%s does not have %s, which inferd calls; a TensorFlow of 2.11 or newer is needed", path, name);
			dlclose(library);
			return why;
		}
	char *copy = strdup(path);
	if (!copy) return "out of memory";
	slot = 0;
	for (const char *name = inferd_tf_names; *name; name += strlen(name) + 1, slot++) inferd_tf_slots[slot] = dlsym(library, name);
	opened = copy;
	handle = library;
	return NULL;
}

const char *inferd_tf_open(const char *path) {
	pthread_mutex_lock(&lock);
	const char *why = open_locked(path);
	pthread_mutex_unlock(&lock);
	return why;
}

const char *inferd_tf_path(void) {
	pthread_mutex_lock(&lock);
	const char *path = opened;
	pthread_mutex_unlock(&lock);
	return path;
}

void *inferd_tf_symbol(const char *name) {
	pthread_mutex_lock(&lock);
	void *symbol = handle ? dlsym(handle, name) : NULL;
	pthread_mutex_unlock(&lock);
	return symbol;
}
