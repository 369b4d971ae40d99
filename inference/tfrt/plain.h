/* plain.h: a session that is given its graph as bytes and keeps no TF_Graph beside it, which would hold every constant once more.
 *
 * TensorFlow calls these functions deprecated and may drop them, so they are looked up when they are needed and one can do without. */
#ifndef INFERD_TFRT_PLAIN_H
#define INFERD_TFRT_PLAIN_H

#include "tf_c_api.h"

typedef struct TF_DeprecatedSession inferd_plain;

/* Whether the open library has them; the name of one that it has not, else NULL. */
const char *inferd_plain_missing(void);

/* A session with this ConfigProto. NULL when status says why. */
inferd_plain *inferd_plain_new(const void *config, size_t bytes, TF_Status *status);
/* Gives it its graph: a GraphDef, which is read and not kept. */
void inferd_plain_extend(inferd_plain *session, const void *graph, size_t bytes, TF_Status *status);
/* TF_SessionRun by names. The inputs stay the caller's. */
void inferd_plain_run(inferd_plain *session, const TF_Buffer *options, const char **feeds, TF_Tensor **in, int nin, const char **fetches,
                      TF_Tensor **out, int nout, const char **targets, int ntargets, TF_Status *status);
/* Closes and frees it. */
void inferd_plain_close(inferd_plain *session, TF_Status *status);

/* Gives freed memory back to the system. */
void inferd_trim(void);

#endif
