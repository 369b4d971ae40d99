#!/usr/bin/env python3
"""grpc_client.py: the unchanged tensorflow-serving-api client against a running inferd.

    grpc_client.py HOST:PORT [--label LABEL]
    grpc_client.py HOST:PORT --reload DIR

The server has the models half_plus_two, two_layer, strings, two_inputs, counter, nan and defaults of ./tools/makemodels, each as version 1.
With --label, that label of half_plus_two names its version 1. With --reload only HandleReloadConfigRequest is tried: the server has one model,
mnist, whose base path is DIR/half_plus_two, and DIR has the folders of two_layer, counter and defaults too. Prints each wrong answer and a line that counts the checks; exits 1 when one
was wrong.
"""

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import inference_pb2
from tensorflow_serving.apis import model_management_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2
from tensorflow_serving.config import model_server_config_pb2

from checks import check, finish

TIMEOUT = 30  # seconds, for calls that must answer


def check_near(what, got, want, tolerance=1e-4):
    got, want = np.asarray(got), np.asarray(want)
    check(f"{what}: shape", got.shape, want.shape)
    if got.shape == want.shape:
        check(f"{what}: {got} is near {want}", bool(np.allclose(got, want, atol=tolerance)), True)


def check_error(what, call, code, text):
    """The call must fail with that code, and a text that begins with text."""
    try:
        answer = call()
        check(what, f"answered {str(answer)[:200]}", f"{code} {text}")
    except grpc.RpcError as e:
        check(what, (e.code(), (e.details() or "")[: len(text)]), (code, text))


def tensor(dtype, shape, **values):
    """A TensorProto with typed fields, which make_tensor_proto writes only for single values."""
    t = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, **values)
    t.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return t


class Client:
    """One channel with the stubs that are used."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def request(self, model, inputs, signature="", version=None, label=None, outputs=()):
        r = predict_pb2.PredictRequest()
        r.model_spec.name = model
        r.model_spec.signature_name = signature
        if version is not None:
            r.model_spec.version.value = version
        if label is not None:
            r.model_spec.version_label = label
        for name, t in inputs.items():
            r.inputs[name].CopyFrom(t if isinstance(t, tensor_pb2.TensorProto) else tf.make_tensor_proto(t))
        r.output_filter.extend(outputs)
        return r

    def predict(self, model, inputs, **kw):
        return self.prediction.Predict(self.request(model, inputs, **kw), timeout=TIMEOUT)

    def health(self, service):
        """The state of grpc.health.v1 as its number, without needing that package: one string in, one enum out."""
        name = service.encode()
        call = self.channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=lambda b: b, response_deserializer=lambda b: b)
        answer = call(b"\x0a" + bytes([len(name)]) + name if name else b"", timeout=TIMEOUT)
        return answer[1] if len(answer) == 2 and answer[0] == 8 else answer


def out(response, name):
    return tf.make_ndarray(response.outputs[name])


def predictions(c, label):
    column = np.array([[1.0], [2.0], [5.0]], np.float32)
    answer = np.array([[2.5], [3.0], [4.5]], np.float32)
    r = c.predict("half_plus_two", {"x": column})
    check_near("tensor_content", out(r, "y"), answer)
    check("answers are in typed fields", (list(r.outputs["y"].float_val), r.outputs["y"].tensor_content), ([2.5, 3.0, 4.5], b""))
    check("only the output", sorted(r.outputs), ["y"])
    spec = r.model_spec
    check("effective model_spec", (spec.name, spec.version.value, spec.signature_name), ("half_plus_two", 1, "serving_default"))
    r = c.predict("half_plus_two", {"x": tensor(tf.float32, [3, 1], float_val=[1, 2, 5])})
    check_near("float_val", out(r, "y"), answer)
    r = c.predict("half_plus_two", {"x": tensor(tf.float32, [3, 1], float_val=[1, 2])})
    check_near("the last value is repeated", out(r, "y"), [[2.5], [3.0], [3.0]])
    r = c.predict("half_plus_two", {"x": tensor(tf.float32, [2, 1])})
    check_near("no values are zeros", out(r, "y"), [[2.0], [2.0]])
    r = c.predict("half_plus_two", {"x": np.array([1, 2, 5], np.float32)})
    check_near("the kernel decides about [3] for [-1,1]", out(r, "y"), [2.5, 3.0, 4.5])
    r = c.predict("half_plus_two", {"x": np.zeros([0, 1], np.float32)})
    check("no rows", out(r, "y").shape, (0, 1))
    r = c.predict("half_plus_two", {"x": column}, signature="serving_default", version=1)
    check_near("version and signature by name", out(r, "y"), answer)
    if label:
        r = c.predict("half_plus_two", {"x": column}, label=label)
        check_near("version by label", out(r, "y"), answer)
        check("the answer names the version", r.model_spec.version.value, 1)
    r = c.prediction.Predict(c.request("half_plus_two", {"x": column}), timeout=TIMEOUT, compression=grpc.Compression.Gzip)
    check_near("gzip", out(r, "y"), answer)
    big = np.arange(1_000_000, dtype=np.float32).reshape(-1, 1)
    check_near("4 MB in and out", out(c.predict("half_plus_two", {"x": big}), "y"), big / 2 + 2, tolerance=0.1)
    waiting = [c.prediction.Predict.future(c.request("half_plus_two", {"x": np.array([[i]], np.float32)}), timeout=TIMEOUT) for i in range(64)]
    check("64 calls at once", [float(out(f.result(), "y")[0, 0]) for f in waiting], [i / 2 + 2 for i in range(64)])

    zeros = [0.07506171, -0.39989996, 0.004155985, -0.098112665, -0.014662822, -0.14838837, 0.074688114, 0.14149833, -0.28190386, 0.13406762]
    ramp = [1.0857626, -0.9837953, -1.0263022, -1.012148, -0.017553253, -0.92597777, -1.7228945, -0.007798916, -1.6180688, 0.7415167]
    rows = np.stack([np.zeros(32, np.float32), np.arange(32, dtype=np.float32) / 16 - 1])
    check_near("two_layer", out(c.predict("two_layer", {"x": rows}), "y"), [zeros, ramp], tolerance=1e-3)

    words = [b"h\xc3\xa9llo", b"", b"\x00\xff"]
    greeting = [b"hello, " + w for w in words]
    r = c.predict("strings", {"x": tf.make_tensor_proto(words)})
    check("strings", (list(out(r, "y")), list(out(r, "greeting"))), (words, greeting))
    check("strings are in string_val", list(r.outputs["y"].string_val), words)
    r = c.predict("strings", {"x": tf.make_tensor_proto(words)}, outputs=["greeting"])
    check("output_filter", (sorted(r.outputs), list(out(r, "greeting"))), (["greeting"], greeting))

    a, b = np.array([[1, 2]], np.float32), np.array([[10, 20]], np.float32)
    r = c.predict("two_inputs", {"b": b, "a": a}, outputs=["sum", "diff"])
    check("two inputs", (out(r, "sum").tolist(), out(r, "diff").tolist()), ([[11, 22]], [[-9, -18]]))
    x = np.array([[3]], np.float32)
    check("default of an input", out(c.predict("defaults", {"x": x}), "y").tolist(), [[30]])
    check("instead of the default", out(c.predict("defaults", {"x": x, "scale": np.float32(2)}), "y").tolist(), [[6]])
    c.predict("counter", {}, signature="reset_counter")
    c.predict("counter", {}, signature="incr_counter")
    c.predict("counter", {"delta": np.float32(5)}, signature="incr_counter_by")
    check("a signature without inputs, and state", float(out(c.predict("counter", {}, signature="get_counter"), "output")), 6.0)
    r = out(c.predict("nan", {"x": np.array([[0], [1], [-1]], np.float32)}), "y")
    check("NaN and infinities", (bool(np.isnan(r[0, 0])), r[1:, 0].tolist()), (True, [np.inf, -np.inf]))


def errors(c):
    code = grpc.StatusCode
    one = np.array([[1]], np.float32)
    predict = lambda model="half_plus_two", inputs=None, **kw: lambda: c.predict(model, {"x": one} if inputs is None else inputs, **kw)
    check_error("no model_spec", lambda: c.prediction.Predict(predict_pb2.PredictRequest(), timeout=TIMEOUT), code.INVALID_ARGUMENT, "Missing ModelSpec")
    check_error("no name", predict(model=""), code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    check_error("unknown model", predict(model="nobody"), code.NOT_FOUND, "Servable not found for request: Latest(nobody)")
    check_error("unknown version", predict(version=99), code.NOT_FOUND, "Servable not found for request: Specific(half_plus_two, 99)")
    check_error("unknown label", predict(label="nolabel"), code.INVALID_ARGUMENT, "Unrecognized servable version label: nolabel")
    check_error("unknown signature", predict(signature="S"), code.FAILED_PRECONDITION, 'Serving signature key "S" not found.')
    check_error("no inputs", predict(inputs={}), code.INVALID_ARGUMENT,
                "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.")
    check_error("wrong input", predict(inputs={"z": one}), code.INVALID_ARGUMENT,
                "Signature input alias: x(feed name: x:0) not found in request and no default value provided. "
                "Inputs expected to be in the request {z}, or default input alias set: ")
    check_error("extra input beside defaults", predict(model="defaults", inputs={"x": one, "z": one}), code.INVALID_ARGUMENT,
                "Inputs contains invalid name. Used request inputs: x, request input: x,z")
    check_error("unknown output", predict(outputs=["z"]), code.INVALID_ARGUMENT,
                "output tensor alias not found in signature: z Outputs expected to be in the set {y}.")
    check_error("output twice", predict(outputs=["y", "y"]), code.INVALID_ARGUMENT, "duplicate output tensor alias: y")
    check_error("wrong dtype", predict(inputs={"x": tf.make_tensor_proto(["a"])}), code.INVALID_ARGUMENT,
                "Expects arg[0] to be float but string is provided")
    check_error("truncated tensor_content", predict(inputs={"x": tensor(tf.float32, [2, 1], tensor_content=b"1234567")}), code.INVALID_ARGUMENT,
                "tensor parsing error: x")
    check_error("a product that overflows", predict(inputs={"x": tensor(tf.float32, [1 << 40, 1 << 40], float_val=[1])}), code.INVALID_ARGUMENT,
                "tensor parsing error: x")
    check_error("a message over the limit", predict(inputs={"x": np.zeros([17 << 20, 1], np.float32)}), code.RESOURCE_EXHAUSTED, "")
    check_error("Classify", lambda: c.prediction.Classify(classification_pb2.ClassificationRequest(), timeout=TIMEOUT), code.INVALID_ARGUMENT, "Missing ModelSpec")
    check_error("Regress", lambda: c.prediction.Regress(regression_pb2.RegressionRequest(), timeout=TIMEOUT), code.INVALID_ARGUMENT, "Missing ModelSpec")
    check_error("MultiInference", lambda: c.prediction.MultiInference(inference_pb2.MultiInferenceRequest(), timeout=TIMEOUT),
                code.INVALID_ARGUMENT, "ModelSpec has no name specified.")


def metadata(c):
    def ask(model, fields=("signature_def",)):
        r = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        r.model_spec.name = model
        return c.prediction.GetModelMetadata(r, timeout=TIMEOUT)

    def signatures(answer):
        defs = get_model_metadata_pb2.SignatureDefMap()
        check("metadata is a SignatureDefMap", answer.metadata["signature_def"].Unpack(defs), True)
        return defs.signature_def

    r = ask("half_plus_two")
    check("metadata names the version", (r.model_spec.name, r.model_spec.version.value, r.model_spec.signature_name), ("half_plus_two", 1, ""))
    sig = signatures(r)["serving_default"]
    check("metadata of x", (sig.inputs["x"].dtype, [d.size for d in sig.inputs["x"].tensor_shape.dim]), (tf.float32.as_datatype_enum, [-1, 1]))
    check("metadata of y", "y" in sig.outputs, True)
    check("metadata of the method", sig.method_name, "tensorflow/serving/predict")
    check("defaults are not sent", len(signatures(ask("defaults"))["serving_default"].defaults), 0)
    code = grpc.StatusCode.INVALID_ARGUMENT
    check_error("metadata without a field", lambda: ask("half_plus_two", []), code, "GetModelMetadataRequest must specify at least one metadata_field")
    check_error("metadata of another field", lambda: ask("half_plus_two", ["X"]), code, "Metadata field X is not supported")


def status(c):
    def ask(model, version=None):
        r = get_model_status_pb2.GetModelStatusRequest()
        r.model_spec.name = model
        if version is not None:
            r.model_spec.version.value = version
        return c.models.GetModelStatus(r, timeout=TIMEOUT).model_version_status

    states = get_model_status_pb2.ModelVersionStatus
    v = ask("half_plus_two", 1)
    check("status", [(s.version, s.state, s.status.error_code, s.status.error_message) for s in v], [(1, states.AVAILABLE, 0, "")])
    check("status of all versions", [s.version for s in ask("two_layer")], [1])
    not_found = grpc.StatusCode.NOT_FOUND
    check_error("status of nobody", lambda: ask("nobody"), not_found, "Could not find any versions of model nobody")
    check_error("status of version 9", lambda: ask("half_plus_two", 9), not_found, "Could not find version 9 of model half_plus_two")
    try:
        c.models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), timeout=TIMEOUT)
        check("a reload without a list", "answered", "refused")
    except grpc.RpcError as e:
        check("a reload without a list", e.code(), grpc.StatusCode.INVALID_ARGUMENT)


def reload(c, models):
    """The list of models replaced over the wire, as TensorFlow Serving's users do it."""
    code = grpc.StatusCode
    x = np.array([[1]], np.float32)

    def entry(name, folder, labels=None, specific=()):
        m = model_server_config_pb2.ModelConfig(name=name, base_path=os.path.join(models, folder), model_platform="tensorflow")
        m.model_version_policy.specific.versions.extend(specific)
        if not specific:
            m.ClearField("model_version_policy")
        for label, version in (labels or {}).items():
            m.version_labels[label] = version
        return m

    def ask(*entries, metrics=()):
        r = model_management_pb2.ReloadConfigRequest(metric_names=metrics)
        r.config.model_config_list.config.extend(entries)
        if not entries:
            r.config.model_config_list.SetInParent()
        return c.models.HandleReloadConfigRequest(r, timeout=TIMEOUT)

    def answers(what, model, label=None):
        check_near(what, out(c.predict(model, {"x": x}, label=label), "y"), [[2.5]])

    answers("before the reload", "mnist")
    count = ":tensorflow:serving:request_count"
    r = ask(entry("mnist", "half_plus_two"), entry("second", "half_plus_two", {"stable": 1}, [1]), metrics=[count, "nobody"])
    check("status in the answer", (r.status.error_code, r.status.error_message), (0, ""))
    check("increases", [(m.name, m.int64_value_increase) for m in r.metric], [(count, 0), ("nobody", 0)])
    answers("a new model answers when the reload does", "second")
    answers("and so does its label", "second", "stable")
    answers("the other goes on", "mnist")

    custom = model_management_pb2.ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    for what, r in [("no config", model_management_pb2.ReloadConfigRequest()), ("custom_model_config", custom)]:
        check_error(what, lambda r=r: c.models.HandleReloadConfigRequest(r, timeout=TIMEOUT), code.INVALID_ARGUMENT,
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported")
    check_error("a model twice", lambda: ask(entry("mnist", "half_plus_two"), entry("mnist", "half_plus_two")), code.INVALID_ARGUMENT,
                "Illegal to list model mnist multiple times in config list")
    check_error("another platform", lambda: ask(model_server_config_pb2.ModelConfig(name="mnist", base_path=models, model_platform="other")), code.INVALID_ARGUMENT,
                "Illegal to change a model's platform. For model mnist platform was tensorflow and new platform requested is other")
    check_error("a label of nothing", lambda: ask(entry("mnist", "half_plus_two", {"canary": 2})), code.FAILED_PRECONDITION,
                "Request to assign label to version 2 of model mnist, which is not currently available for inference")
    check_error("no folder", lambda: ask(entry("mnist", "half_plus_two"), entry("third", "nothing")), code.UNKNOWN,
                "1 model(s) did not become available: {{name: third")
    answers("after all that the models are as they were", "second", "stable")
    check_error("and no third", lambda: c.predict("third", {"x": x}), code.NOT_FOUND, "Servable not found for request: Latest(third)")

    ask(entry("mnist", "half_plus_two", {"stable": 1}))
    answers("a label of a model that was there", "mnist", "stable")
    check_error("omitted: unloaded", lambda: c.predict("second", {"x": x}), code.NOT_FOUND, "Servable not found for request: Latest(second)")
    ask()
    check_error("an empty list", lambda: c.predict("mnist", {"x": x}), code.NOT_FOUND, "Servable not found for request: Latest(mnist)")
    ask(entry("mnist", "half_plus_two"))
    answers("back again", "mnist")


def health(c):
    serving = 1
    for name in ["", "PredictionService", "ModelService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "half_plus_two"]:
        check(f"health of {name!r}", c.health(name), serving)
    check_error("health of nobody", lambda: c.health("nobody"), grpc.StatusCode.NOT_FOUND, "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="where inferd's gRPC listens, HOST:PORT")
    parser.add_argument("--reload", metavar="DIR", help="try HandleReloadConfigRequest with the models in that directory")
    parser.add_argument("--label", help="a label of half_plus_two's version 1")
    args = parser.parse_args()
    c = Client(args.address)
    try:
        grpc.channel_ready_future(c.channel).result(timeout=TIMEOUT)
    except grpc.FutureTimeoutError:
        sys.exit(f"nothing answered at {args.address} within {TIMEOUT} s")
    parts = [lambda: reload(c, args.reload)] if args.reload else [lambda: predictions(c, args.label), lambda: errors(c), lambda: metadata(c), lambda: status(c), lambda: health(c)]
    for part in parts:
        try:
            part()
        except grpc.RpcError as e:  # an answer was wanted; the other parts are still worth knowing
            check("a call that must answer", f"{e.code()} {e.details()}", "an answer")
    finish("gRPC: ")


if __name__ == "__main__":
    main()
