"""datatypes.py: which of the test models has which datatype, and values of it."""

import ml_dtypes
import numpy as np

TYPES = {
    "bool": ("BOOL", np.array([True, False, True])),
    "uint8": ("UINT8", np.array([0, 1, 255], np.uint8)), "uint16": ("UINT16", np.array([0, 1, 65535], np.uint16)),
    "uint32": ("UINT32", np.array([0, 1, 2**32 - 1], np.uint32)), "uint64": ("UINT64", np.array([0, 1, 2**64 - 1], np.uint64)),
    "int8": ("INT8", np.array([-128, 0, 127], np.int8)), "int16": ("INT16", np.array([-2**15, 0, 2**15 - 1], np.int16)),
    "int32": ("INT32", np.array([-2**31, 0, 2**31 - 1], np.int32)), "int64": ("INT64", np.array([-2**63, 0, 2**63 - 1], np.int64)),
    "half": ("FP16", np.array([0.5, -2, 65504], np.float16)), "float": ("FP32", np.array([0.1, -2, 3e38], np.float32)),
    "double": ("FP64", np.array([0.1, -2, 1e300])), "bfloat16": ("BF16", np.array([0.5, -2, 3], ml_dtypes.bfloat16)),
    "string": ("BYTES", np.array([b"", "h\u00e9llo".encode(), b"x" * 1000], np.object_)),
}
