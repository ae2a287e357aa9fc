#!/usr/bin/env python3
"""A stranger's walk: a fresh clone, the README, and every command in it in order, as written.

In a network namespace of its own, where ports 8080, 8081 and 9090 are free, so it needs root (or user namespaces)
and ip(8). A command that starts a server stays in the background until the next one, or the end. Each curl
is to be answered 2xx, or as its README block says in a comment, like (403).

`cargo` and `simple-artifact-server` are the binary under test, since it was built already;
README_CARGO=real lets cargo build and test, in the clone.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import frag

REPOSITORY = frag.HERE.parent.parent
SERVER = re.compile(r"^([A-Z_]+=\S+ )*(cargo run|simple-artifact-server --command)\b")
REAL_CARGO = os.environ.get("README_CARGO") == "real"
BLOCK_SECONDS = 900 if REAL_CARGO else 60
# What needs another world: containers, a checkout of somebody else's.
ELSEWHERE = re.compile(r"^(docker|kubectl|FROM) ", re.MULTILINE)

CURL = """#!/bin/sh
exec {curl} --write-out '%{{stderr}}STATUS %{{http_code}}\\n' --max-time 60 --silent --show-error "$@"
"""
CARGO = """#!/bin/sh
if [ "$1" = run ]; then
    while [ "$1" != -- ]; do shift; done
    shift
    exec {binary} "$@"
fi
echo "cargo $*: the tests and the build are elsewhere" >&2
"""


def enter_namespace():
    """Runs this script again where all ports are free."""
    if "README_INSIDE" in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    if shutil.which("ip") is None:
        frag.skip("no ip(8)")
    words = frag.unshare("--net")
    os.environ["README_INSIDE"] = "1"
    os.execvp(words[0], [*words, sys.executable, __file__])


def clone(folder):
    """What is tracked, as it stands: a clone of the last commit would miss what is being worked on."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        source, place = REPOSITORY / name, folder / name
        if source.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


def tools(folder):
    folder.mkdir()
    binary = os.environ["FRAG_BIN"]
    scripts = {"curl": CURL.format(curl=shutil.which("curl")), "simple-artifact-server": f'#!/bin/sh\nexec {binary} "$@"\n'}
    if not REAL_CARGO:
        scripts["cargo"] = CARGO.format(binary=binary)
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def commands(block):
    """The block's commands: lines, with those they are continued on."""
    joined = re.sub(r"\\\n\s*", "", block)
    return [line for line in joined.splitlines() if line.strip()]


class Walk:
    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment
        self.server = None

    def start(self, line):
        self.stop()
        # Through a group of its own: the server is behind a shell, or behind cargo.
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec env {line}" if "=" in line.split()[0] else f"exec {line}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        def ready():
            if self.server.poll() is not None:
                raise SystemExit(f"FAILED: it ended with {self.server.returncode}: {line}\n{self.text()}")
            try:
                with urllib.request.urlopen("http://localhost:8080/_frag/await", timeout=15) as answer:
                    return answer.status == 200
            except OSError:
                return False
        frag.wait_for(ready, BLOCK_SECONDS, line)
        print(f"ok: started: {line}")

    def stop(self):
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGTERM)
            code = self.server.wait(30)
            if code != 0:
                raise SystemExit(f"FAILED: exit code {code} after SIGTERM\n{self.text()}")
        self.server = None

    @property
    def log(self):
        return open(self.folder.parent / "log", "ab")

    def text(self):
        return (self.folder.parent / "log").read_text(errors="replace")[-3000:]

    def block(self, block):
        script = []
        for line in commands(block):
            if SERVER.match(line):
                self.run(script, block)
                script = []
                self.start(line)
            else:
                script.append(line)
        self.run(script, block)

    def run(self, script, block):
        if not any(not line.startswith("#") for line in script):
            return
        text = "set -euo pipefail\n" + "\n".join(script) + "\nsleep 0.2; kill $(jobs -p) 2>/dev/null || true\n"
        began = time.monotonic()
        ran = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BLOCK_SECONDS,
        )
        statuses = re.findall(r"^STATUS (\d+)$", ran.stderr, re.MULTILINE)
        told = re.findall(r"\((\d{3})\)", block)
        odd = [status for status in statuses if not status.startswith("2") and status not in told and status != "000"]
        first = next(line for line in script if not line.startswith("#"))
        if ran.returncode != 0 or odd:
            print(ran.stdout[-1500:], ran.stderr[-1500:], self.text(), sep="\n--\n")
            raise SystemExit(f"FAILED: exit {ran.returncode}, answers {statuses}: {first}")
        missing = [status for status in told if status not in statuses]
        if missing and statuses:
            raise SystemExit(f"FAILED: the README tells of {missing}, seen {statuses}: {first}")
        print(f"ok: {len(script)} lines, answers {statuses}, {time.monotonic() - began:.1f} s: {first}")


def main():
    enter_namespace()
    with tempfile.TemporaryDirectory(prefix="frag-e2e-readme-") as place:
        place = pathlib.Path(place)
        clone(place / "clone")
        tools(place / "bin")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAG_")}
        environment["PATH"] = f"{place / 'bin'}:{environment['PATH']}"
        environment["CARGO_NET_OFFLINE"] = "true"
        text = (place / "clone" / "README.md").read_text()
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        walk = Walk(place / "clone", environment)
        try:
            for block in blocks:
                if not ELSEWHERE.search(block):
                    walk.block(block)
            walk.stop()
        finally:
            if walk.server is not None:
                os.killpg(walk.server.pid, signal.SIGKILL)
        if len(blocks) < 3:
            raise SystemExit(f"FAILED: the README has only {len(blocks)} blocks of commands")
        print(f"{len(blocks)} blocks")


main()
