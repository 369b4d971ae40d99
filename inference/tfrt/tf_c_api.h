/* tf_c_api.h: the functions of TensorFlow's C API that this package calls itself. The ABI is stable since TensorFlow 1.0 (strings: 2.4).
 * shimgen reads the function names from here, so a declaration is all that a new call needs (then: go generate). */
#ifndef INFERD_TFRT_TF_C_API_H
#define INFERD_TFRT_TF_C_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct TF_Buffer TF_Buffer;
typedef struct TF_Graph TF_Graph;
typedef struct TF_Operation TF_Operation;
typedef struct TF_Session TF_Session;
typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;

/* One output of an operation. Passed by value and in arrays. */
typedef struct TF_Output {
	TF_Operation *oper;
	int index;
} TF_Output;

/* A string element: 24 opaque bytes, the same in every library since 2.4. An all-zero one is the empty string. */
typedef struct TF_TString {
	uint64_t opaque[3];
} TF_TString;

typedef int TF_DataType; /* tensor.DType */
typedef int TF_Code;     /* inference.Code */

const char *TF_Version(void);

TF_Status *TF_NewStatus(void);
void TF_DeleteStatus(TF_Status *status);
TF_Code TF_GetCode(const TF_Status *status);
const char *TF_Message(const TF_Status *status); /* valid until the status changes */

/* The tensor owns data from now on and calls free_data once, from any thread, when the last user of the buffer lets go. */
TF_Tensor *TF_NewTensor(TF_DataType type, const int64_t *dims, int rank, void *data, size_t bytes,
                        void (*free_data)(void *data, size_t bytes, void *arg), void *arg);
void TF_DeleteTensor(TF_Tensor *tensor);
TF_DataType TF_TensorType(const TF_Tensor *tensor);
int TF_NumDims(const TF_Tensor *tensor);
int64_t TF_Dim(const TF_Tensor *tensor, int index);
size_t TF_TensorByteSize(const TF_Tensor *tensor);
void *TF_TensorData(const TF_Tensor *tensor);

void TF_StringInit(TF_TString *string);
void TF_StringCopy(TF_TString *string, const char *from, size_t bytes);
const char *TF_StringGetDataPointer(const TF_TString *string);
size_t TF_StringGetSize(const TF_TString *string);
void TF_StringDealloc(TF_TString *string);

void TF_DeleteGraph(TF_Graph *graph); /* once every session over it is gone */
TF_Operation *TF_GraphOperationByName(TF_Graph *graph, const char *name);
int TF_OperationNumOutputs(TF_Operation *operation);
TF_DataType TF_OperationOutputType(TF_Output output);

TF_Buffer *TF_NewBufferFromString(const void *bytes, size_t count); /* copies */
void TF_DeleteBuffer(TF_Buffer *buffer);

void TF_SessionRun(TF_Session *session, const TF_Buffer *run_options, const TF_Output *inputs, TF_Tensor *const *input_values, int ninputs,
                   const TF_Output *outputs, TF_Tensor **output_values, int noutputs, const TF_Operation *const *targets, int ntargets,
                   TF_Buffer *run_metadata, TF_Status *status);

#endif
