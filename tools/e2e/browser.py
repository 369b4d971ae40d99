#!/usr/bin/env python3
"""browser.py: clients/browser/index.html in a real browser, against an inferd that is killed in the middle.

    browser.py BINARY                    the checks, with LIBTENSORFLOW naming the runtime's directory
    browser.py BINARY --picture FILE     makes the picture of docs/clients.md instead: basic-pitch (build/models), with a kill -9 in the middle

Runs with the Python that has `websockets` (tools/fetch.sh pyclient) and a Chromium, which it drives over its DevTools protocol: CHROMIUM names
the binary. Without one it says so and checks nothing.
"""

import base64
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from websockets.sync.client import connect

import checks
from checks import ROOT, check, finish

sys.path.insert(0, str(ROOT / "clients" / "python" / "tests"))
from conftest import Daemon  # noqa: E402  the same appliance as the Python client's tests have

PAGE = ROOT / "clients" / "browser" / "index.html"
PATIENCE = 90.0


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, binary, folder):
        self.log = open(folder / "chromium.log", "wb")
        self.proc = subprocess.Popen([binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}",
                                      "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--window-size=1000,1000", "about:blank"], stdout=self.log, stderr=self.log)
        port = folder / "profile" / "DevToolsActivePort"
        self.until("DevTools are up", lambda: port.exists() and port.read_text().count("\n") >= 1)
        self.port = port.read_text().split("\n")[0]
        self.ids = itertools.count(1)
        pages = lambda: [p for p in json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/json/list")) if p["type"] == "page"]
        self.until("a page", pages)
        self.closing = contextlib.ExitStack()
        self.conn = self.closing.enter_context(connect(pages()[0]["webSocketDebuggerUrl"], max_size=None))
        self.say("Page.enable")

    def until(self, what, ok):
        end = time.monotonic() + PATIENCE
        while True:
            got = ok()
            if got:
                return got
            if self.proc.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"browser.py: it did not come to this: {what}")
            time.sleep(0.05)

    def say(self, method, **params):
        id = next(self.ids)
        self.conn.send(json.dumps({"id": id, "method": method, "params": params}))
        while True:
            m = json.loads(self.conn.recv(timeout=PATIENCE))
            if m.get("id") == id:
                if "error" in m:
                    raise SystemExit(f"browser.py: {method}: {m['error']}")
                return m["result"]

    def open(self, page=PAGE.as_uri(), **query):
        self.say("Page.navigate", url=page + "?" + urllib.parse.urlencode(query))
        self.until("the page is loaded", lambda: self.js("document.readyState") == "complete" and self.js("typeof stats") == "object")

    def js(self, expression):
        got = self.say("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in got:
            raise SystemExit(f"browser.py: {expression}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def stats(self):
        return self.js("stats")

    def picture(self, file):
        pathlib.Path(file).write_bytes(base64.b64decode(self.say("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.closing.close()
        self.proc.terminate()
        self.proc.wait(timeout=30)
        self.log.close()


def kills(browser, daemon):
    """A durable stream through two kill -9 of the appliance and a reload of the page: every input that was accepted has its result once."""
    browser.open(box=f"127.0.0.1:{daemon.port}", model="half_plus_two", shape="1", every=20, auto=1)
    browser.until("it streams", lambda: browser.stats()["answered"] > 20)
    for n in (1, 2):
        daemon.kill()
        browser.until("the page has noticed", lambda: browser.js("document.getElementById('state').className") == "down")
        browser.until("the source goes on", lambda: browser.js("[...calls.values()].filter(c => !c.out).length") > 10)
        daemon.start()
        before = browser.stats()["answered"]
        browser.until("it goes on after the restart", lambda: browser.stats()["answered"] > before + 20)
        check(f"connections after kill {n}", browser.stats()["connections"] >= n + 1, True)
    # The page goes away in the middle and comes back: what it had not seen comes then.
    browser.js("clearInterval(ticking)")
    browser.until("everything is answered", lambda: browser.js("calls.size") == 0)
    browser.js("for (let i = 0; i < 40; i++) submit(take())")
    browser.until("some of it is accepted", lambda: browser.stats()["accepted"] + browser.stats()["answered"] > 0)
    first, sent = browser.js("shown"), browser.stats()["sent"]
    accepted = browser.js("[...calls].filter(([, c]) => c.accepted).map(([id]) => id)")
    daemon.kill()
    check("each input of the first visit that was answered has one result", [id for id, n in first.items() if n != 1], [])
    check("nothing was refused or lost", browser.js("[...document.querySelectorAll('#log .bad')].map(d => d.textContent).filter(t => !t.includes('--- '))"), [])
    seen, life = browser.js("shown"), browser.js("life")
    browser.open(box=f"127.0.0.1:{daemon.port}", model="half_plus_two", shape="1")
    daemon.start()
    due = set(accepted) - set(seen)
    browser.until("what was accepted comes after a reload", lambda: due <= set(browser.js("shown")))
    later = browser.js("shown")
    check("once each", [id for id, n in later.items() if n != 1], [])
    check("and nothing that was seen before", sorted(set(later) & set(seen)), [])
    check("and nothing that was never sent", [id for id in later if not id.startswith(life + "-") or int(id.rpartition("-")[2]) >= sent], [])


def sources(browser, daemon):
    """The microphone and the camera (Chromium's fake ones), and a source that is not allowed."""
    for source, shape in (("microphone", "4,4,3"), ("camera", "4,4,3")):
        browser.open(box=f"127.0.0.1:{daemon.port}", model="brightness", shape=shape, source=source, every=20, auto=1, durable=0)
        browser.until(f"{source} is answered", lambda: browser.stats()["answered"] > 5)
        check(f"the source is the {source}", browser.js("document.getElementById('source').value"), source)
    browser.js("navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('not allowed')); mic = null; $('source').value = 'microphone'; open('microphone')")
    browser.until("it falls back", lambda: browser.js("document.getElementById('source').value") == "melody")


def refused(browser, daemon):
    """A page that is not among stream.origins is told so by its state, and keeps trying."""
    browser.open(box=f"127.0.0.1:{daemon.port}", model="half_plus_two", shape="1", auto=1)
    browser.until("it is not let in", lambda: browser.js("document.getElementById('state').className") == "down")
    check("no connection", browser.stats()["connections"], 0)


def served(browser, daemon):
    """The page as the appliance serves it, with nothing said but the model: it knows where it came from."""
    browser.open(daemon.base + "/stream", model="half_plus_two", shape="1", every=20, auto=1)
    browser.until("the page that is served streams", lambda: browser.stats()["answered"] > 5)
    check("the box is the page's own", browser.js("$('box').value"), f"127.0.0.1:{daemon.port}")


def picture(browser, folder, file):
    """basic-pitch hears the melody; in the middle the appliance is killed."""
    daemon = Daemon(folder, ROOT / "build" / "models")
    daemon.args.append("--stream.origins=null")
    daemon.start()
    daemon.ready("basic-pitch")
    browser.open(box=f"127.0.0.1:{daemon.port}", every=2000, auto=1)
    browser.until("it streams", lambda: browser.stats()["answered"] >= 3)
    daemon.kill()
    browser.until("some inputs wait", lambda: browser.js("[...calls.values()].filter(c => !c.out).length") >= 1)
    daemon.start()
    browser.until("it goes on", lambda: browser.js("calls.size") == 0)
    browser.picture(file)
    daemon.end()


def main():
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
    if not chromium:
        print("browser.py: no Chromium on this machine (apt-get install chromium, or CHROMIUM=/path): the browser page was not checked")
        return print("0 passed, 0 failed, 1 skipped")
    os.environ.setdefault("INFERD", os.path.abspath(sys.argv[1]))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="inferd-browser-"))
    browser = Browser(chromium, folder)
    try:
        if sys.argv[2:3] == ["--picture"]:
            return picture(browser, folder, sys.argv[3])
        subprocess.run(["go", "run", "./tools/makemodels", "-o", str(folder / "models"), "half_plus_two", "brightness"], cwd=ROOT, check=True)
        daemon = Daemon(folder, folder / "models")
        daemon.start()
        daemon.ready("half_plus_two", "brightness")
        refused(browser, daemon)
        daemon.end()
        daemon.args.append("--stream.origins=null")
        daemon.start()
        daemon.ready("half_plus_two", "brightness")
        kills(browser, daemon)
        daemon.ready("half_plus_two", "brightness")
        sources(browser, daemon)
        daemon.end()
        daemon.args[-1] = "--stream.page"
        daemon.start()
        daemon.ready("half_plus_two", "brightness")
        served(browser, daemon)
        daemon.end()
        check("a page of at most 200 lines", PAGE.read_text().count("\n") <= 200, True)
    finally:
        browser.close()
        if checks.failed and (folder / "log").exists():
            print((folder / "log").read_text()[-6000:])
        shutil.rmtree(folder, ignore_errors=True)
    finish()


if __name__ == "__main__":
    main()
