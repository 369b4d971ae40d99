#!/usr/bin/env python3
"""run.py: the Open Inference Protocol over HTTP, asked by the real tritonclient, and held against an OpenAPI document.

    run.py BINARY        with LIBTENSORFLOW naming the runtime's directory

Makes models with the Go tool, starts the binary, and drives it with the unchanged tritonclient.http, sync and asyncio, and with plain HTTP whose
documents are validated by openapi.json beside this file, which was written from the protocol's reference. Ends with a line that counts the checks.
"""

import asyncio
import json
import pathlib
import sys
import urllib.error
import urllib.request

import jsonschema
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from checks import Inferd, check, finish, free_port  # noqa: E402
from datatypes import TYPES  # noqa: E402

OPENAPI = json.loads((HERE / "openapi.json").read_text(encoding="utf-8"))


def valid(what, schema, document):
    """Holds a document against a schema of the OpenAPI document."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": OPENAPI["components"]}
    errors = [f"{e.json_path}: {e.message}" for e in jsonschema.Draft202012Validator(root).iter_errors(document)]
    check(f"{what} is a valid {schema}", errors, [])


def schema_of(ref):
    return ref["$ref"].rsplit("/", 1)[1]


def ask(base, method, template, body=None, headers=None, **names):
    """One request of a path of the OpenAPI document, whose documents are validated."""
    operation = OPENAPI["paths"][template][method.lower()]
    path = template
    for name, value in names.items():
        path = path.replace("{" + name.upper() + "}", value)
    data = body
    if isinstance(body, (dict, list)):
        valid(f"the request to {path}", schema_of(operation["requestBody"]), body)
        data = json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data if data is not None or method == "GET" else b"", method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as r:
            status, header, content = r.status, r.headers, r.read()
    except urllib.error.HTTPError as e:
        status, header, content = e.code, e.headers, e.read()
    if length := header.get("Inference-Header-Content-Length"):
        content, raw = content[:int(length)], content[int(length):]
    else:
        raw = None
    document = json.loads(content)
    answer = operation["responses"].get(str(status))
    if answer is None:
        valid(f"the answer {status} to {method} {path}", "error", document)
    elif answer:
        valid(f"the answer {status} to {method} {path}", schema_of(answer), document)
    return status, document, raw


def same(got, want):
    return got is not None and got.dtype == want.dtype and got.shape == want.shape and bool(np.all(got == want))


def tensor(name, datatype, values, binary=True):
    t = triton.InferInput(name, list(values.shape), datatype)
    t.set_data_from_numpy(values, binary_data=binary)
    return t


def sync(url):
    c = triton.InferenceServerClient(url)
    check("live, ready", (c.is_server_live(), c.is_server_ready()), (True, True))
    check("ready models", [c.is_model_ready(m) for m in ("half_plus_two", "nobody")], [True, False])
    check("a ready version", [c.is_model_ready("half_plus_two", v) for v in ("1", "2")], [True, False])
    meta = c.get_server_metadata()
    check("server metadata", (meta["name"], "binary_tensor_data" in meta["extensions"]), ("inferd", True))
    check("model metadata", c.get_model_metadata("two_inputs"), {
        "name": "two_inputs", "versions": ["1"], "platform": "tensorflow_savedmodel",
        "inputs": [{"name": n, "datatype": "FP32", "shape": [-1, 2]} for n in ("a", "b")],
        "outputs": [{"name": n, "datatype": "FP32", "shape": [-1, 2]} for n in ("diff", "sum")]})

    a, b = np.array([[1, 2]], np.float32), np.array([[10, 20]], np.float32)
    for binary in (True, False):
        inputs = [tensor("b", "FP32", b, binary), tensor("a", "FP32", a, binary)]
        outputs = [triton.InferRequestedOutput("sum", binary_data=binary), triton.InferRequestedOutput("diff", binary_data=not binary)]
        r = c.infer("two_inputs", inputs, outputs=outputs, request_id="17")
        check(f"sum and diff, binary {binary}", (r.as_numpy("sum").tolist(), r.as_numpy("diff").tolist()), ([[11, 22]], [[-9, -18]]))
        check("the id comes back", r.get_response()["id"], "17")
        r = c.infer("two_inputs", inputs, model_version="1", outputs=[triton.InferRequestedOutput("sum", binary_data=binary)], priority=1, timeout=5_000_000)
        check("one output", [o["name"] for o in r.get_response()["outputs"]], ["sum"])
        r = c.infer("two_inputs", inputs)
        check("all outputs", sorted(o["name"] for o in r.get_response()["outputs"]), ["diff", "sum"])
    for algorithm in ("gzip", "deflate"):
        try:
            r = c.infer("two_inputs", inputs, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
            check(f"compressed with {algorithm}", r.as_numpy("sum").tolist(), [[11, 22]])
        except InferenceServerException as e:
            check(f"compressed with {algorithm}", str(e), "")

    for name, (datatype, values) in TYPES.items():
        model = "identity_" + name
        check(f"{datatype} in the metadata", c.get_model_metadata(model)["inputs"][0]["datatype"], datatype)
        for v in (values, values[:0]):
            check(f"{datatype} {v.shape} raw there and back", same(c.infer(model, [tensor("x", datatype, v)]).as_numpy("y"), v), True)
        if datatype in ("FP16", "BF16"):
            continue  # JSON has no form for them, and the client refuses to send them
        r = c.infer(model, [tensor("x", datatype, values, False)], outputs=[triton.InferRequestedOutput("y", binary_data=False)])
        got = r.as_numpy("y")
        if datatype == "BYTES":  # the client leaves text that came in JSON as text
            got = np.array([s.encode() for s in got], np.object_)
        check(f"{datatype} in JSON there and back", same(got, values), True)

    pending = [c.async_infer("two_inputs", inputs, request_id=str(i)) for i in range(20)]
    check("async_infer", [p.get_result().get_response()["id"] for p in pending], [str(i) for i in range(20)])
    body, length = triton.InferenceServerClient.generate_request_body(inputs)
    check("generate_request_body", (len(body) > 0, length is None or length > 0), (True, True))

    def refused(what, word, f):
        try:
            f()
            check(what, "an answer", word)
        except InferenceServerException as e:
            check(f"{what}: {e}", word in str(e), True)

    refused("unknown model", "Request for unknown model: 'nobody'", lambda: c.infer("nobody", inputs))
    refused("missing input", 'input "b" is missing', lambda: c.infer("two_inputs", inputs[1:]))
    refused("unknown output", "is none of signature", lambda: c.infer("two_inputs", inputs, outputs=[triton.InferRequestedOutput("z")]))
    refused("a sequence", "there are no sequences", lambda: c.infer("two_inputs", inputs, sequence_id=3, sequence_start=True))
    refused("classes", "classification", lambda: c.infer("two_inputs", inputs, outputs=[triton.InferRequestedOutput("sum", class_count=2)]))
    refused("other type", "Expects arg[0] to be float but int32 is provided", lambda: c.infer("half_plus_two", [tensor("x", "INT32", np.array([[1]], np.int32))]))

    stats = c.get_inference_statistics("two_inputs")["model_stats"][0]
    check("statistics count", (stats["version"], stats["inference_stats"]["success"]["count"] >= 28, stats["inference_stats"]["fail"]["count"] >= 2, stats["execution_count"] > 0),
          ("1", True, True, True))
    check("statistics of all", len(c.get_inference_statistics()["model_stats"]) >= len(TYPES), True)

    index = {m["name"]: m for m in c.get_model_repository_index()}
    check("index", (index["half_plus_two"]["state"], index["half_plus_two"]["version"]), ("READY", "1"))
    c.unload_model("half_plus_two")
    check("unloaded", (c.is_model_ready("half_plus_two"), c.is_server_ready()), (False, True))
    refused("infer when unloaded", "half_plus_two", lambda: c.infer("half_plus_two", [tensor("x", "FP32", np.array([[1]], np.float32))]))
    check("the index tells", {m["name"]: m for m in c.get_model_repository_index()}["half_plus_two"]["state"] in ("UNAVAILABLE", "UNLOADING"), True)
    c.load_model("half_plus_two")
    check("loaded again", c.infer("half_plus_two", [tensor("x", "FP32", np.array([[1]], np.float32))]).as_numpy("y").tolist(), [[2.5]])
    refused("load what is not there", "failed to load 'nobody', no model is called", lambda: c.load_model("nobody"))
    refused("load with a configuration", "failed to load 'half_plus_two', parameter config", lambda: c.load_model("half_plus_two", config="{}"))
    refused("shared memory", "is not spoken here", lambda: c.get_system_shared_memory_status())
    c.close()


async def aio(url):
    async with triton_aio.InferenceServerClient(url) as c:
        check("aio: live, ready", (await c.is_server_live(), await c.is_server_ready(), await c.is_model_ready("strings")), (True, True, True))
        x = np.array([b"world", b""], np.object_)
        for binary in (True, False):
            r = await c.infer("strings", [tensor("x", "BYTES", x, binary)], outputs=[triton.InferRequestedOutput("greeting", binary_data=binary)])
            check(f"aio: strings, binary {binary}", r.as_numpy("greeting").tolist(), [b"hello, world", b"hello, "] if binary else ["hello, world", "hello, "])
        values = np.arange(8, dtype=np.float32).reshape(8, 1)
        many = await asyncio.gather(*(c.infer("half_plus_two", [tensor("x", "FP32", values + i)], request_id=str(i)) for i in range(50)))
        check("aio: fifty at once", all(same(r.as_numpy("y"), 0.5 * (values + i) + 2) for i, r in enumerate(many)), True)
        check("aio: statistics", (await c.get_inference_statistics("half_plus_two"))["model_stats"][0]["inference_count"] >= 400, True)
        try:
            await c.infer("half_plus_two", [tensor("y", "FP32", values)])
            check("aio: an error", "an answer", "an error")
        except InferenceServerException as e:
            check("aio: an error", 'input "y" is none of signature' in str(e), True)


def documents(base):
    """Every path with its documents validated, and what no client library sends."""
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/stats"):
        check(path, ask(base, "GET", path)[0], 200)
    for model in ["half_plus_two", "strings", "counter", *("identity_" + t for t in TYPES)]:
        for path in ("/v2/models/{MODEL}", "/v2/models/{MODEL}/ready", "/v2/models/{MODEL}/stats"):
            status = 400 if model == "counter" and path == "/v2/models/{MODEL}" else 200  # four signatures, none of them serving_default
            check(f"{path} of {model}", ask(base, "GET", path, model=model)[0], status)
            longer = path.replace("{MODEL}", "{MODEL}/versions/{VERSION}")
            check(f"{longer} of {model}", ask(base, "GET", longer, model=model, version="1")[0], status)
            check(f"{longer} of {model}, version 9", ask(base, "GET", longer, model=model, version="9")[0], 404)
    check("index", ask(base, "POST", "/v2/repository/index", {"ready": True})[0], 200)

    infer = "/v2/models/{MODEL}/infer"
    for data in ([[1.0], [2.0]], [1.0, 2.0]):
        body = {"id": "a", "inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "data": data}], "outputs": [{"name": "y"}]}
        status, document, _ = ask(base, "POST", infer, body, model="half_plus_two")
        check("flat and nested", (status, document), (200, {"model_name": "half_plus_two", "model_version": "1", "id": "a",
                                                           "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [2.5, 3.0]}]}))
    body = {"parameters": {"signature_name": "incr_counter"}, "inputs": []}
    check("a signature by name", ask(base, "POST", infer, body, model="counter")[0], 200)

    raw = np.array([4], np.float32).tobytes()
    status, document, out = ask(base, "POST", infer, raw, {"Inference-Header-Content-Length": "0"}, model="half_plus_two")
    check("a request without JSON", (status, document["outputs"][0]["parameters"], np.frombuffer(out or b"", np.float32).tolist()), (200, {"binary_data_size": 4}, [4.0]))
    status, document, out = ask(base, "POST", infer, b"\xff all of it", {"Inference-Header-Content-Length": "0"}, model="identity_string")
    check("a string without JSON", (status, out), (200, serialize_byte_tensor(np.array([b"\xff all of it"], np.object_)).item()))

    def binary(what, code, text, body, tail, length=None, model="half_plus_two"):
        head = json.dumps(body).encode()
        headers = {"Inference-Header-Content-Length": str(len(head) if length is None else length)}
        status, document, _ = ask(base, "POST", infer, head + tail, headers, model=model)
        check(f"{what}: {document}", (status, text in document["error"]), (code, True))

    one = lambda **more: {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}} | more]}
    binary("shape and size", 400, "takes 8 bytes, got 4", one(shape=[2, 1]), raw)
    binary("a header length beyond the body", 400, "bytes of JSON, and the body has", one(), raw, length=10**6)
    binary("a size beyond the body", 400, "is said to have 400 bytes", one(parameters={"binary_data_size": 400}), raw)
    binary("bytes left over", 400, "4 bytes of binary data are left over", one(), raw + raw)
    binary("BYTES that run over", 400, "element 0 is said to have 99 bytes", one(shape=[1], datatype="BYTES", parameters={"binary_data_size": 8}), b"\x63\0\0\0abcd", model="identity_string")
    binary("an unknown datatype", 400, 'the datatype "FP8", which is none', one(datatype="FP8"), raw)
    binary("two outputs of one name", 400, "is asked for twice", one() | {"outputs": [{"name": "y"}, {"name": "y"}]}, raw)
    check("no such path", ask(base, "GET", "/v2/models/{MODEL}", model="")[0], 404)


def main():
    url = f"127.0.0.1:{free_port()}"
    models = ["half_plus_two", "two_inputs", "strings", "counter", *("identity_" + t for t in TYPES)]
    with Inferd(sys.argv[1], models, "--http", url, "--grpc", "") as server:
        client = triton.InferenceServerClient(url)

        def ready():
            try:
                index = client.get_model_repository_index()
                return client.is_server_ready() and len(index) == len(models) and all(m.get("state") == "READY" for m in index)
            except (OSError, InferenceServerException):
                return False

        server.until("the models are ready", ready)
        client.close()
        sync(url)
        asyncio.run(aio(url))
        documents("http://" + url)
    finish()


if __name__ == "__main__":
    main()
