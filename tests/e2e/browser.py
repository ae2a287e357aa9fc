#!/usr/bin/env python3
"""Real apps in a real browser, as their users see them: the apps of examples/ behind the server, in
headless Chromium.

Streamlit: the page, a round trip over its WebSocket, an upload that is shown at once, one with a
restart that is shown without a reload, the failure page and the way back from it. Vite: a hot update
that keeps the page's state. browser.mjs has the browser's side.

What it needs beyond Chromium and Node comes from PyPI and the npm registry into a cache (below
XDG_CACHE_HOME, 500 MB). SHOTS names a folder for screenshots. Skipped where something is missing, and
in CI, unless BROWSER_TESTS=true, until the cache is there.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import frag

SKIPPED = 77
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "frag-e2e")
EXAMPLES = frag.HERE.parent.parent / "examples"
PLAYWRIGHT = "playwright-core@^1.50"
VITE_PACKAGE = EXAMPLES / "vite" / "package.json"
REQUIREMENTS = EXAMPLES / "streamlit" / "requirements.txt"
INSTALL_SECONDS = 300


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def find_chromium():
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, filter(None, names)) if path), None)


def install(folder, recipe, *commands):
    """Runs the commands once for this recipe; a half installed folder counts as none."""
    done = folder / "installed"
    if done.exists() and done.read_text() == recipe:
        return
    if os.environ.get("CI") == "true" and os.environ.get("BROWSER_TESTS") != "true":
        skip(f"in CI only with BROWSER_TESTS=true or once {folder} is filled")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    for command in commands:
        try:
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            skip(f"{command[0]}: {error}")
        if ran.returncode != 0:
            skip(f"{' '.join(map(str, command))} ended with {ran.returncode}: {ran.stderr[-400:]}")
    done.write_text(recipe)
    print(f"installed {folder.name} in {time.monotonic() - began:.0f} s")


def install_node_modules():
    package = VITE_PACKAGE.read_text()
    folder = CACHE / "node"
    copy = [sys.executable, "-c", f"import shutil; shutil.copy({str(VITE_PACKAGE)!r}, '.')"]
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", PLAYWRIGHT]
    install(folder, package + PLAYWRIGHT, copy, npm)
    return folder


def install_streamlit():
    folder = CACHE / "streamlit"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]
    recipe = REQUIREMENTS.read_text() + sys.version
    install(folder, recipe, [sys.executable, "-m", "venv", folder], pip)
    return folder / "bin" / "streamlit"


def browse(scenario, server, chromium, modules):
    environment = dict(os.environ, CHROMIUM=chromium, NODE_MODULES=str(modules), ROOT=str(server.root))
    base = f"http://{frag.LOOPBACK}:{server.port}"
    script = frag.HERE / "browser.mjs"
    ran = subprocess.run(["node", script, scenario, base], env=environment, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{scenario}: exit code {ran.returncode}")


def test_streamlit(streamlit, chromium, modules):
    # The flags of examples/streamlit/README.md; the port is free, thus not known before the command.
    command = (
        f"sh -c 'exec {streamlit} run app.py --server.port $PORT --server.address 127.0.0.1"
        " --server.headless true --server.runOnSave true --browser.gatherUsageStats false'"
    )
    with frag.Server(command) as server:
        shutil.copy(EXAMPLES / "streamlit" / "app.py", server.root)
        server.wait_ready()
        browse("streamlit", server, chromium, modules)


def test_vite(chromium, modules):
    with frag.Server("node_modules/.bin/vite") as server:
        for name in ("index.html", "main.js", "package.json", "vite.config.js"):
            shutil.copy(EXAMPLES / "vite" / name, server.root)
        (server.root / "node_modules").symlink_to(modules)
        server.wait_ready()
        browse("vite", server, chromium, modules)


def test_failure(chromium, modules):
    # It prints what people print, and fails until there is an app.
    program = """
import os, runpy, sys
print("\\x1b[32mINFO\\x1b[0m reading the configuration")
try:
    runpy.run_path("app.py")
except FileNotFoundError:
    print("Traceback (most recent call last):", file=sys.stderr)
    print('  File "<start>", line 5, in <module>', file=sys.stderr)
    sys.exit("FileNotFoundError: there is no app.py & nothing to do without it")
"""
    with frag.Server(f"{sys.executable} start.py", "--max-restarts", "0") as server:
        # It has most likely failed before the program was there; what counts is the next start.
        (server.root / "start.py").write_text(program)
        server.request("POST", "/_frag/start")
        frag.wait_for(lambda: server.json("GET", "/_frag/status")[1]["status"] == "failed", 20, "failed")
        browse("failure", server, chromium, modules)


def main():
    chromium = find_chromium()
    if chromium is None:
        skip("no Chromium")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            skip(f"no {program}")
    modules = install_node_modules() / "node_modules"
    streamlit = install_streamlit()
    test_failure(chromium, modules)
    test_vite(chromium, modules)
    test_streamlit(streamlit, chromium, modules)


if __name__ == "__main__":
    main()
