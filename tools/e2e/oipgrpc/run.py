#!/usr/bin/env python3
"""run.py: the Open Inference Protocol over gRPC, asked by the real tritonclient and by grpcurl.

    run.py BINARY GRPCURL        with LIBTENSORFLOW naming the runtime's directory

Makes models with the Go tool, starts the binary, and drives it with the unchanged tritonclient.grpc (sync, asyncio, stream), with its generated stub
as tritonclient's own example programs use it, and with grpcurl, which knows the service from nothing but server reflection. Ends with a line that counts
the checks.
"""

import asyncio
import json
import os
import pathlib
import queue
import subprocess
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent / "oip"))
from checks import Inferd, check, finish, free_port  # noqa: E402
from datatypes import TYPES  # noqa: E402

# The fields of contents, by datatype. FP16 and BF16 have none.
CONTENTS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
            "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}


def refused(what, status, text, call):
    """Holds the error of a call against its status and what is in its sentence."""
    try:
        call()
    except InferenceServerException as e:
        got = (str(e.status()), text if text in e.message() else e.message())
        check(what, got, (f"StatusCode.{status}", text))
    else:
        check(what, "answered", "refused")


def tensor(name, datatype, value):
    t = triton.InferInput(name, list(value.shape), datatype)
    t.set_data_from_numpy(value)
    return t


def half(*values, module=triton):
    """Inputs of half_plus_two."""
    t = module.InferInput("x", [len(values), 1], "FP32")
    t.set_data_from_numpy(np.array(values, np.float32).reshape(-1, 1))
    return [t]


def sync(url):
    """The synchronous client: every method that there is."""
    client = triton.InferenceServerClient(url)
    check("live and ready", (client.is_server_live(), client.is_server_ready()), (True, True))
    check("models ready", [client.is_model_ready(*m) for m in (("half_plus_two",), ("half_plus_two", "1"), ("half_plus_two", "9"), ("nobody",))], [True, True, False, False])
    m = client.get_server_metadata()
    check("server metadata", (m.name, "statistics" in m.extensions, "model_repository" in m.extensions), ("inferd", True, True))
    m = client.get_model_metadata("half_plus_two")
    check("model metadata", (m.name, list(m.versions), m.platform, [(t.name, t.datatype, list(t.shape)) for t in m.inputs], m.outputs[0].name),
          ("half_plus_two", ["1"], "tensorflow_savedmodel", [("x", "FP32", [-1, 1])], "y"))
    c = client.get_model_config("half_plus_two", as_json=True)["config"]
    check("model config", (c["name"], c["platform"], c["input"][0]["data_type"]), ("half_plus_two", "tensorflow_savedmodel", "TYPE_FP32"))
    refused("metadata of nobody", "NOT_FOUND", "nobody", lambda: client.get_model_metadata("nobody"))

    r = client.infer("half_plus_two", half(1, 2, 5), request_id="seven", outputs=[triton.InferRequestedOutput("y")], model_version="1")
    check("infer", (r.as_numpy("y").ravel().tolist(), r.get_response().id, r.get_response().model_version), ([2.5, 3, 4.5], "seven", "1"))
    for how in ("gzip", "deflate"):
        try:
            r = client.infer("half_plus_two", half(1), compression_algorithm=how)
            check(f"infer, {how}", r.as_numpy("y").tolist(), [[2.5]])
        except InferenceServerException as e:  # gRPC has no deflate in Go; the client is told
            check(f"infer, {how}", (how, str(e.status())), ("deflate", "StatusCode.UNIMPLEMENTED"))
    r = client.infer("half_plus_two", half(1), priority=1, timeout=10_000_000, client_timeout=10)
    check("priority and timeout", r.as_numpy("y").tolist(), [[2.5]])
    futures = queue.Queue()
    for i in range(20):
        client.async_infer("half_plus_two", half(i), lambda result, error: futures.put((result, error)), request_id=str(i))
    got = dict((r.get_response().id, float(r.as_numpy("y")[0, 0])) for r, e in (futures.get(timeout=30) for _ in range(20)))
    check("async_infer", got, {str(i): i / 2 + 2 for i in range(20)})
    for name, (datatype, value) in TYPES.items():
        model = "identity_" + name
        spec = client.get_model_metadata(model)
        r = client.infer(model, [tensor(spec.inputs[0].name, datatype, value)])
        out = spec.outputs[0].name
        check(f"{datatype} back", (r.get_output(out).datatype, r.as_numpy(out).tolist()), (datatype, value.tolist()))

    refused("unknown model", "NOT_FOUND", "Request for unknown model: 'nobody'", lambda: client.infer("nobody", half(1)))
    refused("unknown version", "NOT_FOUND", "Request for unknown model: 'half_plus_two' version 9 is not found", lambda: client.infer("half_plus_two", half(1), model_version="9"))
    refused("unknown input", "INVALID_ARGUMENT", 'input "q" is none of signature', lambda: client.infer("half_plus_two", [tensor("q", "FP32", np.zeros((1, 1), np.float32))]))
    refused("unknown output", "INVALID_ARGUMENT", 'output "q" is none of', lambda: client.infer("half_plus_two", half(1), outputs=[triton.InferRequestedOutput("q")]))
    refused("two outputs of one name", "INVALID_ARGUMENT", "asked for twice", lambda: client.infer("half_plus_two", half(1), outputs=[triton.InferRequestedOutput("y")] * 2))
    refused("wrong datatype", "INVALID_ARGUMENT", "float", lambda: client.infer("half_plus_two", [tensor("x", "INT32", np.zeros((1, 1), np.int32))]))
    refused("a sequence", "UNIMPLEMENTED", "sequence", lambda: client.infer("half_plus_two", half(1), sequence_id=7, sequence_start=True))
    refused("shared memory", "UNIMPLEMENTED", "shared memory", lambda: client.register_system_shared_memory("r", "/r", 64))
    refused("trace", "UNIMPLEMENTED", "not traced", client.get_trace_settings)

    s = client.get_inference_statistics("half_plus_two").model_stats[0]
    check("statistics", (s.name, s.version, s.inference_stats.success.count >= 20, s.inference_stats.fail.count >= 1, s.execution_count >= 1), ("half_plus_two", "1", True, True, True))
    index = {m.name: (m.version, m.state) for m in client.get_model_repository_index().models}
    check("index", (index["half_plus_two"], len(index)), (("1", "READY"), 2 + len(TYPES)))
    client.unload_model("half_plus_two")
    check("unloaded", client.is_model_ready("half_plus_two"), False)
    refused("a request for it", "NOT_FOUND", "half_plus_two", lambda: client.infer("half_plus_two", half(1)))
    client.load_model("half_plus_two")
    check("loaded again", (client.is_model_ready("half_plus_two"), client.infer("half_plus_two", half(1)).as_numpy("y").tolist()), (True, [[2.5]]))
    refused("a configuration in load", "UNIMPLEMENTED", "config", lambda: client.load_model("half_plus_two", config="{}"))
    refused("load nobody", "NOT_FOUND", "nobody", lambda: client.load_model("nobody"))
    client.close()


def stream(url):
    """The client's stream: many in flight, errors beside answers."""
    client = triton.InferenceServerClient(url)
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(300):
        client.async_stream_infer("half_plus_two", half(i), request_id=str(i))
    got = {}
    for _ in range(300):
        result, error = answers.get(timeout=60)
        check("no error", error, None)
        got[result.get_response().id] = float(result.as_numpy("y")[0, 0])
    check("300 answers of a stream", got, {str(i): i / 2 + 2 for i in range(300)})
    client.async_stream_infer("nobody", half(1), request_id="bad")
    _, error = answers.get(timeout=30)
    check("an error of one request", "Request for unknown model: 'nobody'" in error.message(), True)
    client.async_stream_infer("half_plus_two", half(1), request_id="final", enable_empty_final_response=True)
    result, _ = answers.get(timeout=30)
    check("the stream goes on", (result.get_response().id, result.get_response().parameters["triton_final_response"].bool_param), ("final", True))
    client.stop_stream()
    client.close()


async def aio(url):
    """The asyncio client, and its stream."""
    client = triton_aio.InferenceServerClient(url)
    check("aio: ready", (await client.is_server_ready(), await client.is_model_ready("half_plus_two")), (True, True))
    check("aio: metadata", (await client.get_model_metadata("half_plus_two")).inputs[0].datatype, "FP32")
    results = await asyncio.gather(*(client.infer("half_plus_two", half(i, module=triton_aio), request_id=str(i)) for i in range(50)))
    check("aio: infer", [float(r.as_numpy("y")[0, 0]) for r in results], [i / 2 + 2 for i in range(50)])
    try:
        await client.infer("nobody", half(1, module=triton_aio))
        check("aio: nobody", "answered", "refused")
    except InferenceServerException as e:
        check("aio: nobody", str(e.status()), "StatusCode.NOT_FOUND")

    async def requests():
        for i in range(100):
            yield {"model_name": "half_plus_two", "inputs": half(i, module=triton_aio), "request_id": str(i)}

    got = {}
    async for result, error in client.stream_infer(requests()):
        check("aio: no error", error, None)
        got[result.get_response().id] = float(result.as_numpy("y")[0, 0])
    check("aio: stream_infer", got, {str(i): i / 2 + 2 for i in range(100)})
    await client.close()


def stub(url):
    """The generated stub with typed contents, as tritonclient's own explicit-contents example programs use it: answers are raw."""
    with grpc.insecure_channel(url) as channel:
        service = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name, (datatype, value) in TYPES.items():
            if datatype not in CONTENTS:
                continue
            model = "identity_" + name
            spec = service.ModelMetadata(service_pb2.ModelMetadataRequest(name=model))
            request = service_pb2.ModelInferRequest(model_name=model, id="explicit")
            t = request.inputs.add(name=spec.inputs[0].name, datatype=datatype, shape=value.shape)
            getattr(t.contents, CONTENTS[datatype]).extend(value.tolist())
            r = service.ModelInfer(request)
            check(f"{datatype} typed, answered raw", (len(r.raw_output_contents), triton.InferResult(r).as_numpy(r.outputs[0].name).tolist()), (1, value.tolist()))
            request.parameters["binary_data_output"].bool_param = False
            r = service.ModelInfer(request)
            check(f"{datatype} typed, answered typed", (len(r.raw_output_contents), list(getattr(r.outputs[0].contents, CONTENTS[datatype]))), (0, value.tolist()))


def grpcurl(binary, url):
    """grpcurl, which knows the service from server reflection only."""
    def call(*args, data=None):
        if data is not None:
            args = ("-d", json.dumps(data), *args)
        return subprocess.run([binary, "-plaintext", *args], capture_output=True, text=True, timeout=60, check=False)

    listed = call(url, "list").stdout.split()
    check("grpcurl lists the service", "inference.GRPCInferenceService" in listed, True)
    methods = call(url, "list", "inference.GRPCInferenceService").stdout.split()
    check("and its methods", [m.rsplit(".", 1)[1] for m in methods if m.endswith(("ModelInfer", "ModelStreamInfer", "RepositoryIndex"))], ["ModelInfer", "ModelStreamInfer", "RepositoryIndex"])
    check("and describes a message", "raw_input_contents = 7" in call(url, "describe", "inference.ModelInferRequest").stdout, True)
    service = "inference.GRPCInferenceService/"
    check("ServerReady", json.loads(call(url, service + "ServerReady").stdout), {"ready": True})
    request = {"model_name": "half_plus_two", "parameters": {"binary_data_output": {"bool_param": False}},
               "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "contents": {"fp32_contents": [1, 2]}}]}
    r = json.loads(call(url, service + "ModelInfer", data=request).stdout)
    check("ModelInfer", r["outputs"], [{"name": "y", "datatype": "FP32", "shape": ["2", "1"], "contents": {"fp32Contents": [2.5, 3]}}])
    r = call(url, service + "ModelStreamInfer", data=request)
    check("ModelStreamInfer", json.loads(r.stdout)["inferResponse"]["outputs"][0]["contents"], {"fp32Contents": [2.5, 3]})
    r = call(url, service + "ModelInfer", data={"model_name": "nobody"})
    check("an error", (r.returncode != 0, "NotFound" in r.stderr), (True, True))


def main():
    curl, url = os.path.abspath(sys.argv[2]), f"127.0.0.1:{free_port()}"
    models = ["half_plus_two", "two_inputs", *("identity_" + t for t in TYPES)]
    with Inferd(sys.argv[1], models, "--grpc", url, "--http", "") as server:
        client = triton.InferenceServerClient(url)

        def ready():
            try:
                index = client.get_model_repository_index().models
                return client.is_server_ready() and len(index) == len(models) and all(m.state == "READY" for m in index)
            except InferenceServerException:
                return False

        server.until("the models are ready", ready)
        client.close()
        sync(url)
        stream(url)
        asyncio.run(aio(url))
        stub(url)
        grpcurl(curl, url)
    finish()


if __name__ == "__main__":
    main()
