"""conftest.py: a running inferd for the tests, which may be killed and started again.

INFERD names the binary (default: build/inferd), LIBTENSORFLOW the runtime's directory (default: build/runtime).
"""

import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PATIENCE = 60.0  # how long a test waits for what must come; it is not how long it should take


def pytest_report_header():
    return f"inferd: {binary()}, runtime: {runtime()}"


def binary():
    return pathlib.Path(os.environ.get("INFERD", ROOT / "build" / "inferd"))


def runtime():
    return pathlib.Path(os.environ.get("LIBTENSORFLOW", ROOT / "build" / "runtime"))


class Daemon:
    """One appliance, on one port whatever happens to it."""

    def __init__(self, folder, models):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.args = [str(binary()), "serve", "--models-dir", str(models), "--state-dir", str(folder / "state"), "--runtime", str(runtime()), "--listen.http", f"127.0.0.1:{self.port}",
                     "--listen.grpc", "", "--listen.control", str(folder / "ctl")]
        self.proc = None

    def token(self, name, *scopes):
        """A token that the daemon, once it is started, asks for."""
        self.args += ["--access.tokens_file", str(self.log.parent / "tokens.yaml")] if "--access.tokens_file" not in self.args else []
        made = subprocess.run([str(binary()), "token", "add", name, "--scope", ",".join(scopes), "--file", str(self.log.parent / "tokens.yaml")], check=True, capture_output=True, text=True)
        return made.stdout

    def start(self):
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(self.args, stdout=log, stderr=log)

    def ready(self, *models):
        end = time.monotonic() + PATIENCE
        for model in models or ("half_plus_two",):
            while True:
                try:
                    with urllib.request.urlopen(f"{self.base}/readyz?model={model}", timeout=5):
                        break
                except urllib.error.HTTPError as e:
                    e.close()
                except OSError:
                    pass
                assert self.proc.poll() is None and time.monotonic() < end, f"{model} did not come up:\n{self.log.read_text()}"
                time.sleep(0.05)
        return self

    def kill(self):
        """kill -9, and no more."""
        self.proc.send_signal(signal.SIGKILL)
        self.proc.wait()

    def end(self):
        if self.proc.poll() is None:
            self.proc.terminate()
            assert self.proc.wait(timeout=40) == 0, self.log.read_text()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    subprocess.run(["go", "run", "./tools/makemodels", "-o", str(folder), "half_plus_two", "strings"], cwd=ROOT, check=True)
    return folder


@pytest.fixture
def daemon(tmp_path, models):
    if not binary().exists():
        pytest.skip(f"no inferd at {binary()}: `make build` builds it, INFERD names another")
    if not list(runtime().glob("libtensorflow*.so*")):
        pytest.skip(f"no TensorFlow runtime in {runtime()}: `make runtime` fetches it, LIBTENSORFLOW names another")
    d = Daemon(tmp_path, models)
    d.start()
    yield d.ready("half_plus_two", "strings")
    d.end()
