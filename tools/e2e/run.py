#!/usr/bin/env python3
"""run.py: the real clients against a running inferd.

    run.py BINARY        with LIBTENSORFLOW naming the runtime's directory

Makes models with the Go tool, starts the binary twice (as `serve` and as `tensorflow_model_server`), drives it with `requests` and with the
unchanged tensorflow-serving-api client (grpc_client.py beside this file), and ends with a line that counts the checks.
"""

import gzip
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import requests

import checks
from checks import ROOT, check, finish, free_port

HERE = pathlib.Path(__file__).resolve().parent


class Server:
    """One running inferd, ended with SIGTERM, which must exit 0."""

    def __init__(self, args, http, log, argv0=None):
        self.base = f"http://127.0.0.1:{http}"
        self.log = open(log, "w", encoding="utf-8")
        self.proc = subprocess.Popen(args, stdout=self.log, stderr=subprocess.STDOUT, executable=argv0)
        self.logname = log

    def wait(self, path, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.proc.poll() is not None:
                break
            try:
                if requests.get(self.base + path, timeout=5).status_code == 200:
                    return self
            except requests.ConnectionError:
                pass
            time.sleep(0.05)
        self.proc.kill()
        sys.exit(f"{self.base}{path} did not come up; its log:\n{pathlib.Path(self.logname).read_text(encoding='utf-8')}")

    def end(self, what):
        self.proc.send_signal(signal.SIGTERM)
        check(f"{what}: exit code after SIGTERM", self.proc.wait(timeout=40), 0)
        self.log.close()


def rest(base):
    """TensorFlow Serving's REST, with an ordinary HTTP client."""
    post = lambda path, **kw: requests.post(base + path, timeout=60, **kw)
    predict = "/v1/models/half_plus_two:predict"

    r = post(predict, json={"instances": [[1.0], [2.0], [5.0]]})
    check("row form", (r.status_code, r.json()), (200, {"predictions": [[2.5], [3.0], [4.5]]}))
    check("content type", r.headers["Content-Type"], "application/json")
    r = post(predict, json={"inputs": [[1.0], [2.0]]})
    check("column form", (r.status_code, r.json()), (200, {"outputs": [[2.5], [3.0]]}))
    r = post(predict, json={"instances": [1.0, 2.0, 5.0]})
    check("the kernel decides about [3] for [-1,1]", (r.status_code, r.json()), (200, {"predictions": [2.5, 3.0, 4.5]}))
    r = post("/v1/models/half_plus_two/versions/1:predict", json={"instances": [[1.0]]})
    check("version in the path", r.json(), {"predictions": [[2.5]]})
    r = post(predict, data=gzip.compress(b'{"instances": [[1.0]]}'), headers={"Content-Encoding": "gzip"})
    check("gzip body", r.json(), {"predictions": [[2.5]]})
    r = post(predict, data='{"instances": [[NaN], [-Infinity]]}')
    check("NaN and infinity", r.text.replace(" ", "").replace("\n", ""), '{"predictions":[[NaN],[-Infinity]]}')
    r = post("/v1/models/nan:predict", json={"instances": [[1.0], [2.0]]})
    check("NaN out parses with Python's json", r.status_code, 200)
    r = post("/v1/models/strings:predict", json={"instances": [{"b64": "aMOpbGxv"}]})
    check("base64 in", r.status_code, 200)
    add = {"signature_name": "incr_counter_by", "inputs": 1.0}
    first = post("/v1/models/counter:predict", json=add).json()
    check("a counter counts each request once", post("/v1/models/counter:predict", json=add).json(), {"outputs": first.get("outputs", 0) + 1})

    for what, path, body, code, text in [
        ("unknown model", "/v1/models/nobody:predict", '{"instances":[1]}', 404, "Servable not found for request: Latest(nobody)"),
        ("unknown version", "/v1/models/half_plus_two/versions/99:predict", '{"instances":[1]}', 404, "Servable not found for request: Specific(half_plus_two, 99)"),
        ("unknown label", "/v1/models/half_plus_two/labels/x:predict", '{"instances":[1]}', 400, "Unrecognized servable version label: x"),
        ("unknown signature", predict, '{"signature_name":"x","instances":[1]}', 400, 'Serving signature name: "x" not found in signature def'),
        ("empty body", predict, "", 400, "JSON Parse error: The document is empty"),
        ("neither key", predict, "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("malformed path", "/v1/models/half_plus_two:dance", "{}", 400, "Malformed request: POST /v1/models/half_plus_two:dance"),
    ]:
        r = post(path, data=body)
        check(what, (r.status_code, r.json()["error"]), (code, text))
    r = post(predict, data='{"instances": [["a"]]}')
    check("wrong type", (r.status_code, 'JSON Value: "a" Type: String is not of expected type: float' in r.json()["error"]), (400, True))

    r = requests.get(base + "/v1/models/half_plus_two", timeout=5)
    check("status", r.json()["model_version_status"][0], {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}})
    r = requests.get(base + "/v1/models/half_plus_two/metadata", timeout=5)
    sig = r.json()["metadata"]["signature_def"]["signature_def"]["serving_default"]
    check("metadata", (r.json()["model_spec"]["version"], sig["inputs"]["x"]["dtype"]), ("1", "DT_FLOAT"))
    listed = requests.get(base + "/v1/models", timeout=5)
    check("the list names the model", "half_plus_two" in listed.text, True)
    for path in ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/readyz?model=half_plus_two"]:
        check(path, requests.get(base + path, timeout=5).status_code, 200)
    check("/readyz?model=nobody", requests.get(base + "/readyz?model=nobody", timeout=5).status_code != 200, True)
    metrics = requests.get(base + "/metrics", timeout=5).text
    check("metrics count requests", 'model="half_plus_two"' in metrics and "inferd_" in metrics, True)
    check("their metrics path", requests.get(base + "/monitoring/prometheus/metrics", timeout=5).status_code, 200)


def large(base):
    """What is refused before it is read is told to a client that sends it all the same."""
    def post(size, **headers):
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        return requests.post(base + "/v1/models/half_plus_two:predict", data=b" " * size, headers=headers, timeout=60)
    check("a body over the limit", post(65 << 20).status_code, 413)
    check("a class that does not exist", post(8 << 20, X_Inferd_Priority="urgent").status_code, 400)
    for size in (100, 8 << 20):
        r = post(size, Request_Timeout="0.000001")
        check("no time left", (r.status_code, r.headers.get("X-Inferd-Reason"), int(r.headers.get("Retry-After", 0)) >= 1), (429, "deadline", True))


def drop_in(base, models, promote):
    """A model folder copied in is served with no restart; a higher version replaces a lower one, which stays until its probation has ended;
    removing it goes back."""
    shutil.copytree(models / "half_plus_two" / "1", models / "copied" / "1")

    def until(*versions, seconds=30):
        end = time.monotonic() + seconds
        got = None
        while time.monotonic() < end:
            r = requests.get(base + "/v1/models/copied", timeout=5)
            got = [v["version"] for v in r.json().get("model_version_status", []) if v["state"] == "AVAILABLE"] if r.ok else None
            if got == list(versions):
                return got
            time.sleep(0.1)
        return got

    check("a copied model is served", until("1"), ["1"])
    shutil.copytree(models / "half_plus_two" / "1", models / "copied" / "2")
    check("a higher version is watched beside it", until("2", "1"), ["2", "1"])
    check("it is promoted", promote("copied"), 0)
    check("a higher version replaces it", until("2"), ["2"])
    shutil.rmtree(models / "copied" / "2")
    check("removing it goes back", until("1"), ["1"])
    r = requests.post(base + "/v1/models/copied:predict", json={"instances": [[1.0]]}, timeout=10)
    check("the copied model answers", r.json(), {"predictions": [[2.5]]})


def polled(base, log, config, models):
    """TensorFlow Serving's model_config_file with polling: a file with a fault changes nothing, a good one counts."""
    def until(model, code, seconds=30):
        end = time.monotonic() + seconds
        got = None
        while time.monotonic() < end:
            got = requests.get(f"{base}/readyz?model={model}", timeout=5).status_code
            if got == code:
                break
            time.sleep(0.1)
        return got

    good = 'model_config_list { config { name: "%s" base_path: "%s" model_platform: "tensorflow" } }\n'
    config.write_text("model_config_list { config { nam", encoding="utf-8")
    end = time.monotonic() + 30
    while time.monotonic() < end and "configuration refused" not in log.read_text(encoding="utf-8"):
        time.sleep(0.1)
    check("a bad file is told about", "configuration refused" in log.read_text(encoding="utf-8"), True)
    check("and changes nothing", until("mnist", 200), 200)
    config.write_text(good % ("polled", models / "half_plus_two"), encoding="utf-8")
    check("a good file: the new model", until("polled", 200), 200)
    r = requests.post(base + "/v1/models/polled:predict", json={"instances": [[1.0]]}, timeout=10)
    check("the polled model answers", r.json(), {"predictions": [[2.5]]})


def main():
    binary = os.path.abspath(sys.argv[1])
    runtime = os.environ["LIBTENSORFLOW"]
    work = pathlib.Path(tempfile.mkdtemp(prefix="inferd-e2e-"))
    models = work / "models"
    subprocess.run(["go", "run", "./tools/makemodels", "-o", str(models), "half_plus_two", "two_layer", "strings", "two_inputs", "counter", "nan", "defaults"],
                   cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    try:
        http, grpc = free_port(), free_port()
        server = Server([binary, "serve", "--models-dir", str(models), "--runtime", runtime, "--state-dir", str(work / "state"),
                         "--listen.control", str(work / "control.sock"), "--updater.settle_time", "300ms", "--defaults.optimize=off",
                         "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}"], http, str(work / "serve.log"))
        server.wait("/readyz")
        rest(server.base)
        large(server.base)
        drop_in(server.base, models, lambda model: subprocess.run(
            [binary, "models", "promote", model, "--address", str(work / "control.sock")], check=False, stdout=subprocess.DEVNULL).returncode)
        client = subprocess.run([sys.executable, str(HERE / "grpc_client.py"), f"127.0.0.1:{grpc}"], check=False)
        check("tensorflow-serving-api client", client.returncode, 0)
        server.end("serve")

        config = work / "models.config"
        config.write_text('model_config { name: "mnist" base_path: "%s" model_platform: "tensorflow" model_version_policy { specific { versions: 1 } }'
                          ' signature_def { key: "serving_default" signature_def {'
                          ' inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } dim { size: 1 } } } }'
                          ' outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: -1 } dim { size: 1 } } } }'
                          ' method_name: "tensorflow/serving/predict" } } }\n' % (models / "half_plus_two"), encoding="utf-8")
        batching = work / "batching.config"
        batching.write_text("max_batch_size { value: 32 }\nbatch_timeout_micros { value: 1000 }\nnum_batch_threads { value: 2 }\n", encoding="utf-8")
        http, grpc = free_port(), free_port()
        server = Server(["tensorflow_model_server", f"--port={grpc}", f"--rest_api_port={http}", f"--model_config_file={config}", "--enable_batching",
                         f"--batching_parameters_file={batching}", "--model_config_file_poll_wait_seconds=1", "--tensorflow_session_parallelism=2",
                         f"--state_dir={work / 'state2'}", f"--listen.control={work / 'control2.sock'}", f"--runtime.library={runtime}"], http, str(work / "tfs.log"), argv0=binary)
        server.wait("/v1/models/mnist")
        server.wait("/readyz")
        r = requests.post(server.base + "/v1/models/mnist:predict", json={"instances": [[1.0]]}, timeout=10)
        check("their command line serves", r.json(), {"predictions": [[2.5]]})
        client = subprocess.run([sys.executable, str(HERE / "grpc_client.py"), f"127.0.0.1:{grpc}", "--reload", str(models)], check=False)
        check("tensorflow-serving-api client reloads", client.returncode, 0)
        polled(server.base, work / "tfs.log", config, models)
        server.end("tensorflow_model_server")
    finally:
        if checks.failed:
            for log in work.glob("*.log"):
                print(f"---- {log.name}\n{log.read_text(encoding='utf-8')[-6000:]}")
        shutil.rmtree(work, ignore_errors=True)
    finish()


if __name__ == "__main__":
    main()
