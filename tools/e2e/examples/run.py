#!/usr/bin/env python3
"""run.py: Classify, Regress and MultiInference with the unchanged tensorflow-serving-api client, :classify and :regress with requests.

    run.py BINARY        with LIBTENSORFLOW naming the runtime's directory

Serves the model `examples` of ./tools/makemodels, has every answer compared with what TensorFlow itself makes of the same tf.Examples, and sends
what is wrong in every way. Every request is logged, and the log is read with TensorFlow's own TFRecord reader. Prints each wrong answer and a line that counts the checks; exits 1 when one was wrong.
"""

import os
import pathlib
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import inference_pb2
from tensorflow_serving.apis import input_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from checks import Inferd, check, finish, free_port  # noqa: E402

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(**features):
    """A tf.Example; a feature is a float, an int or a string, or a list of them."""
    e = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        f = e.features.feature[name]
        if isinstance(values[0], float):
            f.float_list.value.extend(values)
        elif isinstance(values[0], int):
            f.int64_list.value.extend(values)
        else:
            f.bytes_list.value.extend(values)
    return e


def listed(*examples, context=None):
    if context is None:
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples))
    return input_pb2.Input(example_list_with_context=input_pb2.ExampleListWithContext(examples=examples, context=context))


def spec(signature="", name="examples"):
    return model_pb2.ModelSpec(name=name, signature_name=signature)


class Reference:
    """What TensorFlow answers. The context comes before each example, as TensorFlow Serving puts it."""

    def __init__(self, path):
        self.model = tf.saved_model.load(path)

    def run(self, signature, examples, context=None):
        before = context.SerializeToString() if context is not None else b""
        return self.model.signatures[signature](tf.constant([before + e.SerializeToString() for e in examples]))

    def classes(self, signature, examples, context=None):
        out = self.run(signature, examples, context)
        labels = out["classes"].numpy() if "classes" in out else None
        scores = out["scores"].numpy() if "scores" in out else None
        rows, per = (labels if labels is not None else scores).shape
        return [[(labels[r][c].decode() if labels is not None else "", float(scores[r][c]) if scores is not None else 0.0) for c in range(per)] for r in range(rows)]

    def values(self, signature, examples, context=None):
        return [float(v) for v in np.ravel(self.run(signature, examples, context)["outputs"].numpy())]


def classes(result):
    return [[(c.label, c.score) for c in row.classes] for row in result.classifications]


def values(result):
    return [r.value for r in result.regressions]


def good(stub, base, reference):
    some = [example(x=1.0), example(x=3.5, bias=-2.0), example(x=-7.25, other=b"not asked for")]
    for signature in ["", "classify", "classes", "scores"]:
        got = stub.Classify(classification_pb2.ClassificationRequest(model_spec=spec(signature), input=listed(*some)), timeout=30)
        check(f"Classify {signature}", classes(got.result), reference.classes(signature or "serving_default", some))
        check(f"Classify {signature}: model_spec", (got.model_spec.name, got.model_spec.signature_name, got.model_spec.version.value), ("examples", signature or "serving_default", 1))
    for signature in ["regress", "flat"]:
        got = stub.Regress(regression_pb2.RegressionRequest(model_spec=spec(signature), input=listed(*some)), timeout=30)
        check(f"Regress {signature}", values(got.result), reference.values(signature, some))
    context = example(bias=10.0, x=100.0)
    partly = [example(), example(x=1.0), example(bias=1.0)]
    got = stub.Regress(regression_pb2.RegressionRequest(model_spec=spec("regress"), input=listed(*partly, context=context)), timeout=30)
    check("Regress with a context", values(got.result), reference.values("regress", partly, context))
    check("the example's own feature counts", values(got.result), [62.0, 12.5, 53.0])
    tasks = [inference_pb2.InferenceTask(model_spec=spec("regress"), method_name=REGRESS), inference_pb2.InferenceTask(model_spec=spec(""), method_name=CLASSIFY)]
    got = stub.MultiInference(inference_pb2.MultiInferenceRequest(tasks=tasks, input=listed(*some)), timeout=30)
    check("MultiInference", (values(got.results[0].regression_result), classes(got.results[1].classification_result)),
          (reference.values("regress", some), reference.classes("classify", some)))
    check("MultiInference: model_spec", [r.model_spec.signature_name for r in got.results], ["regress", "serving_default"])

    post = lambda act, body: requests.post(f"{base}/v1/models/examples:{act}", json=body, timeout=30)
    r = post("classify", {"examples": [{"x": 1.0}, {"x": 3.5, "bias": -2.0}]})
    check(":classify", (r.status_code, r.json()), (200, {"results": [[list(c) for c in row] for row in reference.classes("classify", some[:2])]}))
    r = post("regress", {"signature_name": "regress", "context": {"bias": 10.0, "x": 100.0}, "examples": [{}, {"x": [1.0]}, {"bias": 1.0}]})
    check(":regress with a context", (r.status_code, r.json()), (200, {"results": [62.0, 12.5, 53.0]}))
    check(":regress byte for byte", r.text, '{\n    "results": [62.0, 12.5, 53.0]\n}')
    r = requests.post(f"{base}/v1/models/examples/versions/1:regress", json={"signature_name": "flat", "examples": [{"x": 1.0}]}, timeout=30)
    check(":regress of a version", r.json(), {"results": [2.5]})


def bad(channel, stub, base):
    code = grpc.StatusCode
    one = listed(example(x=1.0))
    classify = lambda **kw: stub.Classify(classification_pb2.ClassificationRequest(**kw), timeout=30)
    regress = lambda **kw: stub.Regress(regression_pb2.RegressionRequest(**kw), timeout=30)
    multi = lambda *tasks, input=one: stub.MultiInference(inference_pb2.MultiInferenceRequest(tasks=tasks, input=input), timeout=30)
    task = lambda signature, method, name="examples": inference_pb2.InferenceTask(model_spec=spec(signature, name), method_name=method)
    # An Example that is no message, as only a client that writes the bytes itself can send it.
    torn = channel.unary_unary("/tensorflow.serving.PredictionService/Classify", request_serializer=lambda b: b, response_deserializer=classification_pb2.ClassificationResponse.FromString)
    for what, call, want, text in [
        ("no ModelSpec", lambda: classify(input=one), code.INVALID_ARGUMENT, "Missing ModelSpec"),
        ("no name", lambda: classify(model_spec=spec(name=""), input=one), code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ("no such model", lambda: classify(model_spec=spec(name="nobody"), input=one), code.NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        ("no such signature", lambda: classify(model_spec=spec("x"), input=one), code.INVALID_ARGUMENT, "No signature was found with the name: x"),
        ("a predict signature", lambda: classify(model_spec=spec("predict"), input=one), code.INVALID_ARGUMENT, "No classification inputs found in SignatureDef: "),
        ("a classification signature", lambda: regress(model_spec=spec(), input=one), code.INVALID_ARGUMENT, "Expected one output Tensor."),
        ("a regression signature", lambda: classify(model_spec=spec("regress"), input=one), code.INVALID_ARGUMENT,
         'Expected classification signature outputs to contain at least one of "classes" or "scores".'),
        ("no examples", lambda: classify(model_spec=spec(), input=listed()), code.INVALID_ARGUMENT, "Input is empty."),
        ("no input", lambda: regress(model_spec=spec("regress")), code.INVALID_ARGUMENT, "Input is empty."),
        ("a context alone", lambda: regress(model_spec=spec("regress"), input=listed(context=example(x=1.0))), code.INVALID_ARGUMENT, "Input is empty."),
        ("a missing feature", lambda: classify(model_spec=spec(), input=listed(example(bias=1.0))), code.INVALID_ARGUMENT, "Feature: x (data type: float) is required but could not be found."),
        ("a feature of another kind", lambda: classify(model_spec=spec(), input=listed(example(x=1))), code.INVALID_ARGUMENT, "Key: x, Index: 0.  Data types don't match."),
        ("two values for one", lambda: classify(model_spec=spec(), input=listed(example(x=[1.0, 2.0]))), code.INVALID_ARGUMENT, "Key: x, Index: 0.  Number of float values != expected."),
        ("an Example that does not parse", lambda: torn(b"\x0a\x0a\x0a\x08examples\x12\x05\x0a\x03\x0a\x01\xff", timeout=30), code.INVALID_ARGUMENT, "Could not parse example input, value: "),
        ("no tasks", lambda: multi(), code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ("a task without a model", lambda: multi(task("", CLASSIFY), task("regress", REGRESS, "")), code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name."),
        ("two models", lambda: multi(task("", CLASSIFY), task("regress", REGRESS, "other")), code.INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name."),
        ("a signature twice", lambda: multi(task("", CLASSIFY), task("serving_default", CLASSIFY)), code.INVALID_ARGUMENT, "Duplicate evaluation of signature: serving_default"),
        ("no such signature in a task", lambda: multi(task("x", CLASSIFY)), code.INVALID_ARGUMENT, "Requested signature not found in model graph: x"),
        ("a task that predicts", lambda: multi(task("predict", "tensorflow/serving/predict")), code.UNIMPLEMENTED, "Unsupported signature method_name: tensorflow/serving/predict"),
    ]:
        try:
            check(what, f"answered {str(call())[:200]}", f"{want} {text}")
        except grpc.RpcError as e:
            details = e.details() or ""
            check(f"{what}: {details[:300]}", (e.code(), text in details), (want, True))
    for what, body, text in [
        ("an integer for a float feature", '{"examples":[{"x":1}]}', "Key: x, Index: 0.  Data types don't match."),
        ("mixed kinds", '{"examples":[{"x":[1.5,2]}]}', "Unexpected element type in feature: x expecting type: float"),
        ("null", '{"examples":[{"x":null}]}', "Feature: x has element with unexpected JSON type: Null"),
        ("a list in a list", '{"examples":[{"x":[[1.0]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ("too large an integer", '{"examples":[{"x":9223372036854775808}]}', "Feature: x has uint64_t element. Only int64_t is supported."),
        ("an example that is a list", '{"examples":[[1.0]]}', "Example must be JSON object but got JSON Array"),
        ("no examples", '{"examples":[]}', "'examples' value is an empty array"),
        ("examples that are none", '{"examples":{}}', "Expecting 'examples' value to be an list/array"),
        ("instances", '{"instances":[{"x":1.0}]}', "When method is classify, key 'examples' is expected and was not found"),
        ("no JSON", '{"examples":[', "JSON Parse error: "),
    ]:
        r = requests.post(f"{base}/v1/models/examples:classify", data=body, timeout=30)
        check(f":classify with {what}: {r.text}", (r.status_code, text in r.json()["error"]), (400, True))


def together(stub, base):
    """Requests of many clients leave in one run: fewer runs than requests."""
    def runs():
        total = 0
        for line in requests.get(base + "/metrics", timeout=10).text.splitlines():
            if line.startswith("inferd_batch_rows_count{") and 'model="examples"' in line:
                total += float(line.split()[-1])
        return total

    wrong = []
    before, clients, each = runs(), 32, 40

    def client(n):
        for k in range(each):
            x = float(n * each + k)
            got = values(stub.Regress(regression_pb2.RegressionRequest(model_spec=spec("regress"), input=listed(example(x=x))), timeout=60).result)
            if got != [x / 2 + 2]:
                wrong.append((x, got))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    took = runs() - before
    check("each client has its own answer", wrong, [])
    check(f"{clients * each} requests in {took:.0f} runs: they batch", 0 < took < clients * each, True)
    print(f"{clients * each} Regress requests took {took:.0f} runs")


def logged(folder, reference, dropped):
    """The request log, as whoever has TensorFlow reads it: what was asked gives what was answered."""
    files = sorted(str(f) for f in folder.iterdir())
    check("finished files of the request log", [f for f in files if not f.endswith(".tfrecord")], [])
    kinds = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind == "regress_log" and kinds[kind] % 100 == 1:
            request = log.regress_log.request
            check("a logged Regress", values(log.regress_log.response.result), reference.values(request.model_spec.signature_name, request.input.example_list.examples))
        if kind == "classify_log":
            request = log.classify_log.request
            check("a logged Classify", classes(log.classify_log.response.result), reference.classes(request.model_spec.signature_name, request.input.example_list.examples))
        if kinds[kind] == 1:
            check("its version", log.log_metadata.model_spec.version.value, 1)
    # Regress, a task of MultiInference and :regress, and those of together; Classify, a task, :classify.
    check(f"as many requests as were answered, less {dropped}", kinds.get("regress_log", 0) + kinds.get("classify_log", 0) + dropped, 2 + 1 + 1 + 2 + 1280 + 4 + 1 + 1)


def main():
    http, port = free_port(), free_port()
    base = f"http://127.0.0.1:{http}"
    with Inferd(sys.argv[1], ["examples"], "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{port}",
                "--defaults.request_log.rate=1", "--defaults.request_log.format=tfrecord", "--defaults.request_log.payloads") as server:

        def ready():
            try:
                return requests.get(base + "/readyz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        server.until("it is ready", ready)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            reference = Reference(str(server.models / "examples" / "1"))
            good(stub, base, reference)
            bad(channel, stub, base)
            together(stub, base)
        dropped = sum(int(float(line.split()[-1])) for line in requests.get(base + "/metrics", timeout=10).text.splitlines()
                      if line.startswith("inferd_request_log_dropped_total"))
        server.end()
        logged(server.work / "state" / "requests" / "examples", reference, dropped)
    finish()


if __name__ == "__main__":
    main()
