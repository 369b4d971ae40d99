#!/usr/bin/env python3
"""web.py: a page of another origin in a real browser: CORS with fetch, and grpc-web with its official library, as text and as bytes.

    web.py BINARY        with LIBTENSORFLOW naming the runtime's directory, and build/jsclient made by tools/fetch.sh

Runs with the Python that has `websockets` (tools/fetch.sh pyclient) and a Chromium; without one it says so and checks nothing.
"""

import functools
import http.server
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import checks  # noqa: E402
from browser import Browser, Daemon  # noqa: E402  the browser that it drives
from checks import ROOT, check, finish  # noqa: E402


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def outcome(browser, origin, daemon, **query):
    """What the page at that origin has made of it."""
    browser.say("Page.navigate", url=f"{origin}/page.html?" + urllib.parse.urlencode({"box": daemon.base, **query}))
    return browser.until("the page has tried everything", lambda: browser.js("location.href").startswith(origin) and browser.js("window.result"))


def welcome(got, what):
    check(f"{what}: fetch", got["fetch"], {"status": 200, "reason": None, "body": {"predictions": [[2.5], [3]]}})
    check(f"{what}: fetch reads why it was refused", (got["fetchError"]["status"], got["fetchError"]["reason"]), (429, "deadline"))
    check(f"{what}: fetch that asks nothing beforehand", got["simple"]["body"], {"predictions": [[2.5]]})
    for form in ("text", "binary"):
        check(f"{what}: grpc-web, {form}", got[form], [2.5, 3, 4.5])
        check(f"{what}: grpc-web, {form}, 400 KB", got[form + "Large"], 100000)
        check(f"{what}: grpc-web, {form}, an error", got[form + "Error"], {"code": 5, "text": "Servable not found for request: Latest(nobody)"})
    check(f"{what}: grpc-web, a stream", got["watch"], 1)


def refused(got, what):
    for call in ("fetch", "fetchError", "simple"):
        check(f"{what}: {call}", got[call], {"name": "TypeError"})
    for form in ("text", "binary"):
        check(f"{what}: grpc-web, {form}", got[form]["code"] if isinstance(got[form], dict) else got[form], 2)  # the library says no more of it


def main():
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
    library = ROOT / "build" / "jsclient" / "node_modules" / "grpc-web" / "index.esm.js"
    missing = "no Chromium on this machine (apt-get install chromium, or CHROMIUM=/path)" if not chromium else f"no {library} (tools/fetch.sh jsclient)" if not library.exists() else ""
    if missing:
        print(f"web.py: {missing}: no page of another origin was tried")
        return print("0 passed, 0 failed, 1 skipped")
    os.environ.setdefault("INFERD", os.path.abspath(sys.argv[1]))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="inferd-web-"))
    site = folder / "site"
    site.mkdir()
    shutil.copy(HERE / "page.html", site)
    shutil.copy(library, site / "grpc-web.js")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    browser = Browser(chromium, folder)
    try:
        subprocess.run(["go", "run", "./tools/makemodels", "-o", str(folder / "models"), "half_plus_two"], cwd=ROOT, check=True)
        daemon = Daemon(folder, folder / "models")

        def serve(*extra):
            daemon.args, before = daemon.args + list(extra), daemon.args
            daemon.start()
            daemon.args = before
            daemon.ready("half_plus_two")

        serve(f"--rest.origins={origin}")
        welcome(outcome(browser, origin, daemon), "a listed origin")
        refused(outcome(browser, origin.replace("127.0.0.1", "localhost"), daemon), "the same page of another name")
        daemon.end()
        serve("--rest.cors")
        got = outcome(browser, origin, daemon)
        check("their flag: fetch that asks nothing beforehand", got["simple"]["body"], {"predictions": [[2.5]]})
        check("their flag: grpc-web", got["text"], [2.5, 3, 4.5])
        daemon.end()
        serve()
        refused(outcome(browser, origin, daemon), "no origin is listed")
        daemon.end()
        token = daemon.token("page", "predict").split("\n")
        token = next(w for line in token for w in line.split() if w.startswith("inferd_"))
        serve(f"--rest.origins={origin}")
        welcome(outcome(browser, origin, daemon, token=token), "with a token")
        got = outcome(browser, origin, daemon)
        check("without a token: fetch", (got["fetch"]["status"], got["fetch"]["reason"]), (401, "login"))
        check("without a token: grpc-web", got["text"]["code"], 16)
        daemon.end()
    finally:
        browser.close()
        server.shutdown()
        if checks.failed and (folder / "log").exists():
            print((folder / "log").read_text()[-6000:])
        shutil.rmtree(folder, ignore_errors=True)
    finish()


if __name__ == "__main__":
    main()
