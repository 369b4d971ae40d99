/* plain.c: see plain.h. */
#include "plain.h"

#include <malloc.h>
#include <pthread.h>

#include "lib.h"

typedef struct TF_SessionOptions TF_SessionOptions;

static struct {
	TF_SessionOptions *(*new_options)(void);
	void (*set_config)(TF_SessionOptions *, const void *, size_t, TF_Status *);
	void (*delete_options)(TF_SessionOptions *);
	inferd_plain *(*new_session)(const TF_SessionOptions *, TF_Status *);
	void (*extend)(inferd_plain *, const void *, size_t, TF_Status *);
	void (*run)(inferd_plain *, const TF_Buffer *, const char **, TF_Tensor **, int, const char **, TF_Tensor **, int, const char **, int,
	            TF_Buffer *, TF_Status *);
	void (*close)(inferd_plain *, TF_Status *);
	void (*delete)(inferd_plain *, TF_Status *);
} tf;

static const char *missing = "";

static void look(void) {
	static const struct {
		const char *name;
		void **slot;
	} wanted[] = {
	    {"TF_NewSessionOptions", (void **)&tf.new_options}, {"TF_SetConfig", (void **)&tf.set_config},
	    {"TF_DeleteSessionOptions", (void **)&tf.delete_options}, {"TF_NewDeprecatedSession", (void **)&tf.new_session},
	    {"TF_ExtendGraph", (void **)&tf.extend}, {"TF_Run", (void **)&tf.run},
	    {"TF_CloseDeprecatedSession", (void **)&tf.close}, {"TF_DeleteDeprecatedSession", (void **)&tf.delete},
	};
	missing = NULL;
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
		if (!(*wanted[i].slot = inferd_tf_symbol(wanted[i].name))) missing = wanted[i].name;
}

const char *inferd_plain_missing(void) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, look); /* a library is open, so the answer is final */
	return missing;
}

inferd_plain *inferd_plain_new(const void *config, size_t bytes, TF_Status *status) {
	TF_SessionOptions *options = tf.new_options();
	inferd_plain *session = NULL;
	tf.set_config(options, config, bytes, status);
	if (!TF_GetCode(status)) session = tf.new_session(options, status);
	tf.delete_options(options);
	return TF_GetCode(status) ? NULL : session;
}

void inferd_plain_extend(inferd_plain *session, const void *graph, size_t bytes, TF_Status *status) { tf.extend(session, graph, bytes, status); }

void inferd_plain_run(inferd_plain *session, const TF_Buffer *options, const char **feeds, TF_Tensor **in, int nin, const char **fetches,
                      TF_Tensor **out, int nout, const char **targets, int ntargets, TF_Status *status) {
	tf.run(session, options, feeds, in, nin, fetches, out, nout, targets, ntargets, NULL, status);
}

void inferd_plain_close(inferd_plain *session, TF_Status *status) {
	tf.close(session, status);
	tf.delete(session, status);
}

void inferd_trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
