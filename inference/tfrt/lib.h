/* lib.h: opening libtensorflow in this process, callable from C before the Go runtime exists. */
#ifndef INFERD_TFRT_LIB_H
#define INFERD_TFRT_LIB_H

/* Opens the library at path (with a slash in it: no search) and fills every jump slot of the shim. Libraries that it needs and that the
 * loader does not find by itself (libtensorflow_framework, the wheel's libomp) are opened from path's directory and from
 * ../tensorflow.libs beside it.
 *
 * Returns NULL when the library is open, also when this very path was opened before. Otherwise a sentence, which the caller must not free:
 * it lives as long as the process. After a failure nothing was changed and another path may be tried; after a success no other path may.
 *
 * Safe to call from an ELF constructor and from any thread; it takes a lock and may block for as long as the loader reads from disk. It
 * leaves no thread behind other than those that the library's own constructors start (TensorFlow 2.20: none). */
const char *inferd_tf_open(const char *path);

/* The path given to the inferd_tf_open that succeeded, NULL before. It survives fork. */
const char *inferd_tf_path(void);

/* A function of the open library that one can do without; NULL where it has none of that name, or is not open. */
void *inferd_tf_symbol(const char *name);

#endif
