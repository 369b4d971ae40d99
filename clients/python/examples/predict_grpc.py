#!/usr/bin/env python3
"""predict_grpc.py: a prediction over TensorFlow Serving's gRPC, tried again where that helps, and when inferd says that it helps.

    pip install tensorflow-serving-api
    predict_grpc.py HOST:PORT MODEL --input x --values "1 2 5" --shape 3,1

It is the client that people have for TensorFlow Serving, with one thing more: what inferd refuses because it is busy (RESOURCE_EXHAUSTED) or
cannot answer at the moment (UNAVAILABLE) is sent again when inferd said to come again (google.rpc.RetryInfo), else after a growing pause. All
other errors are final: the same request would fail the same way. A prediction may be sent twice; a job needs an idempotency key for that.
"""

import argparse
import os
import random
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
from tensorflow import make_ndarray
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

TIMEOUT = 5  # seconds for one try; it travels with the request, and inferd refuses at once what it cannot answer by then
AGAIN = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


def tensor(array):
    """The array as a TensorProto whose numbers are bytes, which costs neither side a conversion."""
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=n) for n in array.shape]
    dtype = {"float32": types_pb2.DT_FLOAT, "float64": types_pb2.DT_DOUBLE, "int32": types_pb2.DT_INT32, "int64": types_pb2.DT_INT64, "uint8": types_pb2.DT_UINT8}[array.dtype.name]
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims), tensor_content=array.tobytes())


def fields(message):
    """The fields of an encoded protobuf message, as (number, value). With googleapis-common-protos installed, grpc_status does this."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            size = varint()
            yield key >> 3, message[at : at + size]
            at += size
        else:
            return  # no such field is in what is looked for


def retry_after(error):
    """The seconds after which inferd wants to be asked again, or None."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for number, detail in fields(value):  # google.rpc.Status: 3 are the details
            if number != 3:
                continue
            packed = dict(fields(detail))  # google.protobuf.Any: 1 type, 2 value
            if packed.get(1, b"").endswith(b"google.rpc.RetryInfo"):
                delay = dict(fields(dict(fields(packed.get(2, b""))).get(1, b"")))  # google.protobuf.Duration: 1 seconds, 2 nanoseconds
                return delay.get(1, 0) + delay.get(2, 0) / 1e9
    return None


def predict(stub, request, patience=30):
    """Predict, tried again for up to patience seconds. The last error is raised."""
    end = time.monotonic() + patience
    pause = 0.1
    while True:
        try:
            return stub.Predict(request, timeout=TIMEOUT)
        except grpc.RpcError as e:
            told = retry_after(e)
            # Somewhat later than told, each client by another bit: they were all told the same.
            wait = (pause if told is None else told) * random.uniform(1, 1.2)
            if e.code() not in AGAIN or time.monotonic() + wait > end:
                raise
            print(f"{e.code().name}: {e.details()}; again in {wait:.2f} s ({'as inferd said' if told is not None else 'of its own'})", file=sys.stderr)
            time.sleep(wait)
            pause = min(2 * pause, 2)


def main():
    p = argparse.ArgumentParser(description="a prediction over TensorFlow Serving's gRPC, tried again where that helps")
    p.add_argument("address", help="HOST:PORT")
    p.add_argument("model")
    p.add_argument("--input", default="x", help="the input's name")
    p.add_argument("--values", default="1 2 5", help="numbers")
    p.add_argument("--shape", default="-1,1", help="of the tensor; one size may be -1")
    p.add_argument("--repeat", type=int, default=1, help="how often to ask")
    p.add_argument("--patience", type=float, default=30, help="seconds until a try is the last")
    args = p.parse_args()

    values = np.array(args.values.split(), dtype=np.float32).reshape([int(n) for n in args.shape.split(",")])
    request = predict_pb2.PredictRequest()
    request.model_spec.name = args.model
    request.inputs[args.input].CopyFrom(tensor(values))

    # A channel that waits long before it connects again would make of a restart of seconds an outage of a minute.
    options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(args.address, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for _ in range(args.repeat):
            try:
                response = predict(stub, request, args.patience)
            except grpc.RpcError as e:
                print(f"{e.code().name}: {e.details()}", file=sys.stderr)
                return 1
            for name, output in sorted(response.outputs.items()):
                print(name, make_ndarray(output).tolist())
    return 0


if __name__ == "__main__":
    sys.exit(main())
