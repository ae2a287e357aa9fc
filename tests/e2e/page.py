#!/usr/bin/env python3
"""The control page in headless Chromium, as its users see it (page.mjs has the browser's side).

One server with everything turned on, behind a token: the token is entered, files and a folder are
uploaded, the app restarts, programs run, an approval is decided, workers and artifacts are made, the
connection breaks and comes back; names and lines that would be markup, or terminal control, run nothing.
One with nothing turned on: it says how. Both are looked at in light and dark, on a phone and on a desk:
axe-core finds nothing serious, nothing scrolls sideways. Then through a proxy with a path prefix.

SHOTS names a folder for screenshots. Playwright and axe-core come from the npm registry into a cache, as
for browser.py.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import browser
import frag

TOKEN = "s3cret-token"
PACKAGES = (browser.PLAYWRIGHT, "axe-core@^4.10")
EXAMPLES = frag.HERE.parent.parent / "examples"
APP = """
import http.server, os, sys, urllib.parse
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        address = urllib.parse.urlsplit(self.path)
        for name, text in urllib.parse.parse_qsl(address.query):
            lines = [f"line {n}" for n in range(int(text))] if name == "lines" else [text]
            print(*lines, sep="\\n", file=sys.stderr if name == "err" else sys.stdout, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"done")
    def log_message(self, *_):
        pass
print("\\x1b[32mapp\\x1b[0m on port", os.environ["PORT"], flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
"""
# What a name may be on Linux, and what a page must not make of it.
NAMES = ("<img src=x onerror=window.pwned=1>.txt", "turned \u202etxt.exe", "two\nlines", "\x1b[31mred.txt", "100%25 #?&.txt")


def install():
    folder = browser.CACHE / "page"
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", *PACKAGES]
    browser.install(folder, " ".join(PACKAGES), npm)
    return folder / "node_modules"


def browse(scenarios, server, chromium, modules, public=False):
    environment = dict(
        os.environ, CHROMIUM=chromium, NODE_MODULES=str(modules), ROOT=str(server.root), TOKEN=TOKEN,
        APP=f"http://{frag.LOOPBACK}:{server.port}", GIVEN=str(server.given),
    )
    base = f"http://{frag.LOOPBACK}:{server.port}/_frag/" if public else f"http://{frag.LOOPBACK}:{server.control_port}/"
    ran = subprocess.run(["node", frag.HERE / "page.mjs", base, *scenarios], env=environment, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{base}: exit code {ran.returncode}")


@contextlib.contextmanager
def served(*flags, token=None):
    """A server with a control listener, an app, and a folder of files to upload beside its root."""
    (port,) = frag.free_ports(1)
    control = ("--control", f"{frag.LOOPBACK}:{port}")
    environment = {"FRAG_TOKEN": token} if token else None
    with tempfile.TemporaryDirectory(prefix="frag-e2e-") as beside:
        app = pathlib.Path(beside, "app.py")
        app.write_text(APP)
        state = pathlib.Path(beside, "state")
        extra = ("--state-dir", str(state)) if token else ()
        with frag.Server(f"{sys.executable} {app}", *control, *extra, *flags, environment=environment) as server:
            server.control_port = port
            server.given = pathlib.Path(beside, "site")
            (server.given / "img" / "icons").mkdir(parents=True)
            (server.given / "index.html").write_text("<!doctype html><title>x</title>")
            (server.given / "img" / "logo.png").write_bytes(os.urandom(300_000))
            (server.given / "img" / "icons" / "a b%.svg").write_text("<svg/>")
            server.wait_ready()
            yield server


def main():
    chromium = browser.find_chromium()
    if chromium is None:
        browser.skip("no Chromium")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            browser.skip(f"no {program}")
    modules = install()
    everything = (
        "--exec", "any", "--agent", f"{sys.executable} {EXAMPLES / 'agent' / 'agent.py'}",
        "--require-approval", "write_file", "--approval-timeout", "0",
        "--worker", f"runtime_default={sys.executable} {EXAMPLES / 'worker' / 'worker.py'}",
    )
    with served(*everything, token=TOKEN) as server:
        for name in NAMES:
            (server.root / name).write_text("harmless\n")
        (server.root / "pages").mkdir()
        (server.root / "pages" / "about.html").write_text("<p>About\n")
        browse(("work", "looks", "prefix", "bounds"), server, chromium, modules)
    with served() as server:
        browse(("plain",), server, chromium, modules, public=True)


if __name__ == "__main__":
    main()
