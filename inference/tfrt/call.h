/* call.h: one run of a session as one plain structure, so that Go crosses into C twice per run and allocates nothing. */
#ifndef INFERD_TFRT_CALL_H
#define INFERD_TFRT_CALL_H

#include "plain.h"
#include "tf_c_api.h"

/* What the buffers of one call hang on. The deallocators that TensorFlow runs count down here; the owner holds one reference of its own.
 * Whoever drops the last reference frees it, so that buffers may outlive the call, the model and the owner. */
typedef struct inferd_hold inferd_hold;

enum inferd_kind {
	INFERD_LENT,   /* the caller's memory; the caller wants to know when it is free again */
	INFERD_COPIED, /* bytes in the hold's arena */
	INFERD_STRINGS /* TF_TStrings in the hold's arena */
};

typedef struct inferd_input {
	uintptr_t data; /* 64-byte aligned, else TensorFlow copies it; a number, so that Go writes it without a write barrier */
	size_t bytes;
	size_t dims; /* where its dimensions begin in inferd_call.in_dims */
	int rank;
	TF_DataType type;
	int kind; /* enum inferd_kind */
} inferd_input;

typedef struct inferd_output {
	void *data;
	size_t bytes;
	size_t dims; /* where its dimensions begin in inferd_call.out_dims */
	int rank;
	TF_DataType type;
} inferd_output;

/* Reused from call to call; owned by one caller at a time. */
typedef struct inferd_call {
	/* Set by the caller. */
	TF_Session *session;
	inferd_plain *plain; /* runs in the place of session, by names, where it is not NULL */
	const TF_Buffer *options;
	const TF_Output *feeds; /* nin of them */
	TF_Output *fetches;     /* nout of them */
	const char **feed_names;
	const char **fetch_names;
	inferd_input *in;
	int64_t *in_dims;
	inferd_hold *hold; /* NULL is possible where nin is 0 */
	int nin, nout;
	/* Set by inferd_call_run; valid until inferd_call_done. */
	inferd_output *out;
	int64_t *out_dims;
	const char *message; /* of the status when code is not 0 */
	TF_Code code;
	/* Set by inferd_call_done. */
	int pending; /* buffers of this call that TensorFlow still holds */
	int lent;    /* how many of them are INFERD_LENT */
	/* Private. */
	TF_Status *status;
	TF_Tensor **in_tensors, **out_tensors;
	size_t out_dims_cap, in_dims_cap;
	int in_cap, out_cap;
} inferd_call;

/* A call with room for that many inputs and outputs; NULL when out of memory. */
inferd_call *inferd_call_new(int inputs, int outputs);
/* Frees it. Its hold goes when TensorFlow has let go of every buffer. */
void inferd_call_free(inferd_call *call);
/* Makes room for n input dimensions; 0 when out of memory. */
int inferd_call_dims(inferd_call *call, size_t n);

/* Runs the session in this thread, with denormal numbers as zero. The hold belongs to TensorFlow as well until inferd_call_done. */
void inferd_call_run(inferd_call *call);
/* Frees the outputs and counts what TensorFlow still holds. To be called once after every inferd_call_run. */
void inferd_call_done(inferd_call *call);

/* A hold with an arena of that many bytes, 64-byte aligned, and one reference: the caller's. NULL when out of memory. */
inferd_hold *inferd_hold_new(size_t arena);
char *inferd_hold_arena(inferd_hold *hold);
/* How many lent buffers TensorFlow still holds. */
int inferd_hold_lent(inferd_hold *hold);
void inferd_hold_drop(inferd_hold *hold);

/* Builds n TF_TStrings at to from bytes laid end to end. */
void inferd_strings_make(TF_TString *to, const char *bytes, const uint64_t *lengths, size_t n);

/* A scalar of the one TF_TString at the start of the arena, which it frees with its own reference to the hold. */
TF_Tensor *inferd_string_tensor(inferd_hold *hold);

typedef struct inferd_view {
	const char *data;
	size_t bytes;
} inferd_view;

/* Where the n strings at from keep their bytes. */
void inferd_strings_view(const TF_TString *from, inferd_view *to, size_t n);

/* Objects that exist now, over the whole process: input buffers that TensorFlow holds, output tensors, holds. */
typedef struct inferd_counts {
	int64_t inputs, outputs, holds;
} inferd_counts;
inferd_counts inferd_count(void);

/* The thread's floating-point control register: MXCSR or FPCR. */
uint64_t inferd_fp_get(void);
void inferd_fp_set(uint64_t mode);

#endif
