"""checks.py: what the scripts here count their checks with, and an inferd for those that need one of their own."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
passed = 0
failed = []


def check(what, got, want):
    """Counts one comparison and prints it when it is wrong."""
    global passed
    if got == want:
        passed += 1
    else:
        failed.append(what)
        print(f"FAIL {what}\n  got  {got!r}\n  want {want!r}")


def finish(whose=""):
    """Ends the script with a line that counts the checks."""
    print(f"{whose}{passed} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Inferd:
    """An inferd of the binary with the named test models in a folder of its own, which is `work`. Leaving it ends it by SIGTERM, which must exit 0, prints
    the end of its log where a check has failed, and removes the folder."""

    def __init__(self, binary, models, *flags):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="inferd-e2e-"))
        self.models, self.log = self.work / "models", self.work / "serve.log"
        subprocess.run(["go", "run", "./tools/makemodels", "-o", str(self.models), *models], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with open(self.log, "w", encoding="utf-8") as out:
            self.proc = subprocess.Popen([os.path.abspath(binary), "serve", "--models-dir", str(self.models), "--runtime", os.environ["LIBTENSORFLOW"], "--state-dir", str(self.work / "state"),
                                          "--listen.control", str(self.work / "c.sock"), "--updater.settle_time", "300ms", *flags], stdout=out, stderr=subprocess.STDOUT)

    def until(self, what, ready, seconds=120):
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end or self.proc.poll() is not None:
                raise SystemExit(f"it did not come to this: {what}; the log:\n{self.log.read_text(encoding='utf-8')}")
            time.sleep(0.1)

    def end(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        check("exit code after SIGTERM", self.proc.wait(timeout=40), 0)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.proc.returncode is None:
                self.end()
        finally:
            if self.proc.poll() is None:
                self.proc.kill()
            if failed:
                print(self.log.read_text(encoding="utf-8")[-4000:])
            shutil.rmtree(self.work, ignore_errors=True)
