/* call.c: runs a session over lent buffers and keeps account of who still holds them. */
#include "call.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct inferd_hold {
	atomic_int refs; /* buffers that TensorFlow holds, and one for the owner */
	atomic_int lent;
	char pad[56];
	char arena[];
};

_Static_assert(sizeof(struct inferd_hold) == 64, "the arena keeps the alignment of the hold");
_Static_assert(sizeof(TF_TString) == 24, "a string element is 24 bytes in every library since 2.4");

static _Atomic int64_t live_inputs, live_outputs, live_holds;

inferd_counts inferd_count(void) { return (inferd_counts){live_inputs, live_outputs, live_holds}; }

inferd_hold *inferd_hold_new(size_t arena) {
	size_t bytes = (sizeof(inferd_hold) + arena + 63) & ~(size_t)63;
	inferd_hold *hold = bytes < arena ? NULL : aligned_alloc(64, bytes);
	if (!hold) return NULL;
	atomic_init(&hold->refs, 1);
	atomic_init(&hold->lent, 0);
	atomic_fetch_add(&live_holds, 1);
	return hold;
}

char *inferd_hold_arena(inferd_hold *hold) { return hold->arena; }

int inferd_hold_lent(inferd_hold *hold) { return atomic_load(&hold->lent); }

void inferd_hold_drop(inferd_hold *hold) {
	if (atomic_fetch_sub(&hold->refs, 1) != 1) return;
	atomic_fetch_sub(&live_holds, 1);
	free(hold);
}

/* The deallocators. The reference goes last: it may free the hold. */
static void free_lent(void *data, size_t bytes, void *hold) {
	atomic_fetch_sub(&live_inputs, 1);
	atomic_fetch_sub(&((inferd_hold *)hold)->lent, 1);
	inferd_hold_drop(hold);
}

static void free_copied(void *data, size_t bytes, void *hold) {
	atomic_fetch_sub(&live_inputs, 1);
	inferd_hold_drop(hold);
}

static void free_strings(void *data, size_t bytes, void *hold) {
	TF_TString *strings = data;
	for (size_t i = 0; i < bytes / sizeof *strings; i++) TF_StringDealloc(&strings[i]);
	free_copied(data, bytes, hold);
}

void inferd_strings_make(TF_TString *to, const char *bytes, const uint64_t *lengths, size_t n) {
	for (size_t i = 0; i < n; i++) {
		TF_StringInit(&to[i]);
		TF_StringCopy(&to[i], bytes, lengths[i]);
		bytes += lengths[i];
	}
}

void inferd_strings_view(const TF_TString *from, inferd_view *to, size_t n) {
	for (size_t i = 0; i < n; i++) {
		to[i].data = TF_StringGetDataPointer(&from[i]);
		to[i].bytes = TF_StringGetSize(&from[i]);
	}
}

#if defined(__x86_64__)
#include <xmmintrin.h>
uint64_t inferd_fp_get(void) { return _mm_getcsr(); }
void inferd_fp_set(uint64_t mode) { _mm_setcsr((unsigned)mode); }
enum { FLUSH = 0x8040 }; /* flush to zero, denormals are zero */
#elif defined(__aarch64__)
uint64_t inferd_fp_get(void) {
	uint64_t mode;
	__asm__ volatile("mrs %0, fpcr" : "=r"(mode));
	return mode;
}
void inferd_fp_set(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
enum { FLUSH = 1 << 24 }; /* FZ: flush results and inputs */
#else
#error "no shim for this architecture: inferd runs on x86-64 and arm64"
#endif

inferd_call *inferd_call_new(int inputs, int outputs) {
	inferd_call *call = calloc(1, sizeof *call);
	if (!call) return NULL;
	/* One more than asked for, so that none is a null pointer. */
	call->in = calloc(inputs + 1, sizeof *call->in);
	call->in_tensors = calloc(inputs + 1, sizeof *call->in_tensors);
	call->fetches = calloc(outputs + 1, sizeof *call->fetches);
	call->out = calloc(outputs + 1, sizeof *call->out);
	call->out_tensors = calloc(outputs + 1, sizeof *call->out_tensors);
	call->out_dims_cap = 8 * (outputs + 1);
	call->out_dims = calloc(call->out_dims_cap, sizeof *call->out_dims);
	call->status = TF_NewStatus();
	call->in_cap = inputs;
	call->out_cap = outputs;
	if (!call->in || !call->in_tensors || !call->fetches || !call->out || !call->out_tensors || !call->out_dims || !call->status ||
	    !inferd_call_dims(call, 8 * (inputs + 1))) {
		inferd_call_free(call);
		return NULL;
	}
	return call;
}

void inferd_call_free(inferd_call *call) {
	if (call->hold) inferd_hold_drop(call->hold);
	if (call->status) TF_DeleteStatus(call->status);
	free(call->in);
	free(call->in_dims);
	free(call->in_tensors);
	free(call->fetches);
	free(call->out);
	free(call->out_dims);
	free(call->out_tensors);
	free(call);
}

int inferd_call_dims(inferd_call *call, size_t n) {
	if (n <= call->in_dims_cap) return 1;
	int64_t *more = realloc(call->in_dims, n * sizeof *more);
	if (!more) return 0;
	call->in_dims = more;
	call->in_dims_cap = n;
	return 1;
}

static void (*const deallocators[])(void *, size_t, void *) = {
    [INFERD_LENT] = free_lent, [INFERD_COPIED] = free_copied, [INFERD_STRINGS] = free_strings};

static _Alignas(64) char nothing[64]; /* where empty buffers lie */

/* Describes the outputs. 0 when out of memory. */
static int read_outputs(inferd_call *call) {
	size_t at = 0;
	for (int i = 0; i < call->nout; i++) {
		TF_Tensor *tensor = call->out_tensors[i];
		inferd_output *out = &call->out[i];
		out->rank = TF_NumDims(tensor);
		out->type = TF_TensorType(tensor);
		out->data = TF_TensorData(tensor);
		out->bytes = TF_TensorByteSize(tensor);
		out->dims = at;
		if (at + out->rank > call->out_dims_cap) {
			size_t cap = 2 * (at + out->rank);
			int64_t *more = realloc(call->out_dims, cap * sizeof *more);
			if (!more) return 0;
			call->out_dims = more;
			call->out_dims_cap = cap;
		}
		for (int d = 0; d < out->rank; d++) call->out_dims[at++] = TF_Dim(tensor, d);
	}
	return 1;
}

void inferd_call_run(inferd_call *call) {
	int made = 0;
	call->code = 0;
	call->message = NULL;
	for (; made < call->nin; made++) {
		inferd_input *in = &call->in[made];
		atomic_fetch_add(&call->hold->refs, 1);
		if (in->kind == INFERD_LENT) atomic_fetch_add(&call->hold->lent, 1);
		atomic_fetch_add(&live_inputs, 1);
		call->in_tensors[made] = TF_NewTensor(in->type, call->in_dims + in->dims, in->rank,
		                                       in->bytes ? (void *)in->data : nothing, in->bytes, deallocators[in->kind], call->hold);
		if (!call->in_tensors[made]) break;
	}
	memset(call->out_tensors, 0, call->nout * sizeof *call->out_tensors);
	if (made == call->nin) {
		uint64_t mode = inferd_fp_get();
		inferd_fp_set(mode | FLUSH);
		if (call->plain)
			inferd_plain_run(call->plain, call->options, call->feed_names, call->in_tensors, call->nin, call->fetch_names, call->out_tensors,
			                 call->nout, NULL, 0, call->status);
		else
			TF_SessionRun(call->session, call->options, call->feeds, call->in_tensors, call->nin, call->fetches, call->out_tensors, call->nout,
			              NULL, 0, NULL, call->status);
		inferd_fp_set(mode);
		call->code = TF_GetCode(call->status);
		if (call->code) call->message = TF_Message(call->status);
	} else {
		/* The library and the caller disagree about a size. Whether the deallocator ran is unknown, so the buffer counts as held for good. */
		call->code = 13;
		call->message = "TF_NewTensor refused an input";
		for (int i = made + 1; i < call->nin; i++)
			if (call->in[i].kind == INFERD_STRINGS)
				for (size_t n = 0; n < call->in[i].bytes / sizeof(TF_TString); n++) TF_StringDealloc((TF_TString *)call->in[i].data + n);
	}
	for (int i = 0; i < made; i++) TF_DeleteTensor(call->in_tensors[i]);
	for (int i = 0; i < call->nout; i++)
		if (call->out_tensors[i]) atomic_fetch_add(&live_outputs, 1);
	if (!call->code && !read_outputs(call)) {
		call->code = 8;
		call->message = "out of memory";
	}
}

void inferd_call_done(inferd_call *call) {
	for (int i = 0; i < call->nout; i++)
		if (call->out_tensors[i]) {
			TF_DeleteTensor(call->out_tensors[i]);
			atomic_fetch_sub(&live_outputs, 1);
		}
	call->nout = 0;
	call->pending = call->lent = 0;
	if (!call->hold) return;
	/* An output can be an input's own buffer, so the count is only now what it will be. lent is read first: it goes down before refs. */
	call->lent = atomic_load(&call->hold->lent);
	call->pending = atomic_load(&call->hold->refs) - 1;
}

TF_Tensor *inferd_string_tensor(inferd_hold *hold) {
	atomic_fetch_add(&hold->refs, 1);
	atomic_fetch_add(&live_inputs, 1);
	return TF_NewTensor(7 /* string */, NULL, 0, hold->arena, sizeof(TF_TString), free_strings, hold);
}
