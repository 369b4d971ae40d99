#!/usr/bin/env python3
"""conform.py: cases.json through the `websockets` library, and through conform.mjs, against a real inferd.

    conform.py BINARY        with LIBTENSORFLOW naming the runtime's directory and NODE a node that finds `ws` from build/jsclient

A case is what is sent and what must come back: `answers` are the ids of good answers (null: an error without one), `pongs` payloads, `close` the
codes that are right. Where none is named the client closes with 1000 in the end and must be answered with it. What no library would send goes to
its socket as bytes.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "clients" / "python" / "tests"))
from conftest import Daemon  # noqa: E402  the same appliance as the Python client's tests have

PATIENCE = 60


def request(id, size=0, raw=False):
    """The payload of a request, padded to a size with spaces, which JSON allows; raw: a binary frame."""
    if raw:
        header = json.dumps({"id": id, "model": "half_plus_two"}).encode()
        return bytes([4, 0, len(header), 0]) + header + bytes.fromhex("0000803f")
    text = json.dumps({"id": id, "model": "half_plus_two", "instances": [[1]]}, separators=(",", ":"))
    return text + " " * (size - len(text))


def frame(op, fin=1, rsv=0, hex="", fill=0, mask=True):
    """One frame as bytes, masked with zeros."""
    payload = b" " * fill or bytes.fromhex(hex)
    n, bit = len(payload), 0x80 if mask else 0
    length = bytes([bit | n]) if n < 126 else bytes([bit | 126]) + n.to_bytes(2, "big") if n < 65536 else bytes([bit | 127]) + n.to_bytes(8, "big")
    return bytes([fin << 7 | rsv << 4 | op]) + length + (bytes(4) if mask else b"") + payload


def run(case, url):
    """What came back, in the words of the case."""
    got = {"answers": [], "pongs": []}
    pongs = []
    with connect(url, subprotocols=["inferd.v1.json"], max_size=None, open_timeout=PATIENCE, ping_interval=None) as ws:
        assert ws.subprotocol == "inferd.v1.json" and not ws.protocol.extensions, (ws.subprotocol, ws.protocol.extensions)
        assert "hello" in json.loads(ws.recv(timeout=PATIENCE))
        try:
            for step in case["steps"]:
                if "request" in step:
                    ws.send(request(step["request"], step.get("size", 0), step.get("raw", False)))
                elif "ping" in step:
                    payload = bytes.fromhex(step["ping"])
                    pongs.append((step["ping"], ws.ping(payload)))
                elif "bytes" in step:
                    ws.socket.sendall(bytes.fromhex(step["bytes"]))
                else:
                    ws.socket.sendall(frame(**step["frame"]))
            while len(got["answers"]) < len(case.get("answers", [])) or "close" in case:
                message = ws.recv(timeout=PATIENCE)
                if isinstance(message, bytes):
                    message = message[4:4 + message[2]]
                message = json.loads(message)
                if not message.keys() <= {"credits", "draining"}:
                    got["answers"].append(message.get("id"))
            for payload, came in pongs:
                if came.wait(PATIENCE):
                    got["pongs"].append(payload)
            ws.close(1000)
        except (ConnectionClosed, OSError):
            pass
        try:
            while True:  # what the other side had sent before it closed
                ws.recv(timeout=PATIENCE)
        except ConnectionClosed as closed:
            got["close"] = closed.rcvd.code if closed.rcvd else None
    return got


def faults(case, got):
    """Why this is not what the case wants."""
    if sorted(map(str, got["answers"])) != sorted(map(str, case.get("answers", []))):
        yield f"answers {got['answers']}, and should be {case.get('answers', [])}"
    if got["pongs"] != case.get("pongs", []):
        yield f"pongs {got['pongs']}, and should be {case.get('pongs', [])}"
    if got["close"] not in case.get("close", [1000]):
        yield f"closed with {got['close']}, and should be {case.get('close', [1000])}"


def main():
    cases = json.loads((HERE / "cases.json").read_text())
    os.environ["INFERD"] = sys.argv[1]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run(["go", "run", "./tools/makemodels", "-o", str(folder / "models"), "half_plus_two"], cwd=ROOT, check=True)
        daemon = Daemon(folder, folder / "models")
        daemon.start()
        try:
            url = daemon.ready().base.replace("http", "ws", 1) + "/v1/stream"
            clients = {"python websockets": lambda: [run(c, url) for c in cases]}
            node = os.environ.get("NODE")
            if node:
                clients["javascript ws"] = lambda: json.loads(subprocess.run([node, str(HERE / "conform.mjs"), str(HERE / "cases.json"), url, str(ROOT / "build" / "jsclient")],
                                                                            stdout=subprocess.PIPE, check=True, timeout=600).stdout)
            else:
                print("conform.py: NODE names no node: nothing was run through JavaScript's ws")
            for name, client in clients.items():
                bad = [(c["name"], f) for c, got in zip(cases, client(), strict=True) for f in faults(c, got)]
                for case, fault in bad:
                    print(f"FAIL {name}: {case}: {fault}")
                failed += len(bad)
                print(f"conformance, {name}: {len(cases)} cases, {len(bad)} faults")
        finally:
            daemon.end()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
