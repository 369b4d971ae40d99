/* zygote.h: what the core and the zygote say to each other, one packet each. The other side is inference/worker/zygote.go. */
#ifndef INFERD_TFRT_ZYGOTE_H
#define INFERD_TFRT_ZYGOTE_H

#include <stdint.h>

/* The core asks for a worker. With it come two descriptors: the worker's control socket and where its output goes; and a third where
 * confine says so, a Landlock ruleset. */
struct inferd_zygote_request {
	int32_t core;    /* the core's pid */
	int32_t confine; /* what of sandbox.h */
	char name[15]; /* the worker's, for ps; shorter names make a shorter packet */
};

/* The zygote's first packet says with 0 that it is ready. Afterwards it answers each request with the worker's pid. A negative number is an
 * error, with its text; after a first packet that is an error the zygote ends. */
struct inferd_zygote_answer {
	int32_t pid;
	char text[1020]; /* not ended by a NUL; the packet is as long as the text */
};

#endif
