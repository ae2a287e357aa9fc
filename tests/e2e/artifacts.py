#!/usr/bin/env python3
"""Artifacts under load, on a full disk, and in a real browser.

Sixteen clients write and read for a minute: every answer is a success and says what was stored. A disk
of its own runs full: 500, and all is well again once there is room. Then headless Chromium looks at the
built-in viewer (light and dark, on a phone and on a desk, hostile payloads), and, when AGENT_RENDER_OUT
names the static export of the public front end, at that (artifacts.mjs has the browser's side). SHOTS
names a folder for screenshots.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import browser
import frag

LOAD_SECONDS = 5 if frag.SMALL_SCALE else 60
CLIENTS = 16
DISK = "3m"
BALLAST = 1_000_000


class Client:
    """One kept connection to the artifact API of a server."""

    def __init__(self, server):
        self.connection = server.connect()

    def ask(self, method, path, payload=None):
        body = None if payload is None else json.dumps({"payload": payload})
        self.connection.request(method, f"/_frag{path}", body=body)
        response = self.connection.getresponse()
        return response.status, response.read()

    def create(self, payload):
        status, body = self.ask("POST", "/api/artifacts", payload)
        if status != 201:
            raise SystemExit(f"POST: {status} {body!r}")
        return json.loads(body)["id"]


def check(condition, what):
    if not condition:
        raise SystemExit(what)


def writer_and_reader(server, number, deadline, counts, faults):
    rng = random.Random(number)
    try:
        client, known, done = Client(server), {}, 0
        while time.monotonic() < deadline:
            action = rng.random()
            if action < 0.3 or not known:
                payload = f"{number} {done} " + "x" * rng.randrange(20_000)
                known[client.create(payload)] = payload
            else:
                one = rng.choice(list(known))
                if action < 0.8:
                    status, body = client.ask("GET", f"/api/artifacts/{one}")
                    check(status == 200 and json.loads(body)["payload"] == known[one], f"GET: {status}")
                elif action < 0.9:
                    known[one] = f"{number} {done} again"
                    status, body = client.ask("PUT", f"/api/artifacts/{one}", known[one])
                    check(status == 200 and json.loads(body)["payload"] == known[one], f"PUT: {status} {body!r}")
                elif action < 0.95:
                    status, body = client.ask("GET", f"/{one}")
                    check(status == 200 and known[one].encode() in body, f"view: {status}")
                else:
                    del known[one]
                    status, body = client.ask("DELETE", f"/api/artifacts/{one}")
                    check(status == 200 and body == b'{"deleted":true}', f"DELETE: {status} {body!r}")
            done += 1
        counts[number] = (done, len(known))
    except BaseException as fault:  # a thread's fault is the script's
        faults.append(fault)


def test_sixteen_at_once():
    with tempfile.TemporaryDirectory(prefix="frag-e2e-") as state:
        with frag.Server("sleep 9999", "--state-dir", state) as server:
            # It listens before its table is there.
            server.request("GET", "/_frag/health")
            counts, faults = {}, []
            deadline = time.monotonic() + LOAD_SECONDS
            threads = [
                threading.Thread(target=writer_and_reader, args=(server, n, deadline, counts, faults))
                for n in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            # Somebody else looks into the file now and then, too.
            looks = 0
            while any(thread.is_alive() for thread in threads):
                with contextlib.closing(sqlite3.connect(f"{state}/artifacts.db", timeout=30)) as database:
                    database.execute("SELECT count(*) FROM artifacts").fetchone()
                looks += 1
                time.sleep(0.2)
            if faults:
                raise SystemExit(f"{len(faults)} of {CLIENTS} failed: {faults[0]}")
            left = sum(kept for _, kept in counts.values())
            with contextlib.closing(sqlite3.connect(f"{state}/artifacts.db")) as database:
                (rows,) = database.execute("SELECT count(*) FROM artifacts").fetchone()
                (whole,) = database.execute("PRAGMA integrity_check").fetchone()
            check((rows, whole) == (left, "ok"), f"{rows} rows for {left} artifacts, {whole}")
            log = server.log.read_text(errors="replace")
            check("locked" not in log and "WARN" not in log, log[-2000:])
            done = sum(done for done, _ in counts.values())
            print(f"{CLIENTS} clients, {LOAD_SECONDS} s: {done} requests, {left} artifacts, {looks} other readers, no fault")


def test_full_disk():
    with tempfile.TemporaryDirectory(prefix="frag-e2e-") as state:
        fill = f"mount -t tmpfs -o size={DISK} disk {state} && head -c {BALLAST} /dev/zero >{state}/ballast"
        namespace = [*frag.unshare("--mount"), "sh", "-c", f'{fill} && exec "$0" "$@"']
        with frag.Server("sleep 9999", "--state-dir", state, wrapper=namespace) as server:
            client, stored = Client(server), []
            while True:
                status, body = client.ask("POST", "/api/artifacts", "x" * 100_000)
                if status != 201:
                    break
                stored.append(json.loads(body)["id"])
                check(len(stored) < 100, "the disk takes more than it can hold")
            check((status, body) == (500, b'{"error":"Failed to store artifact."}'), f"full: {status} {body!r}")
            for one in stored:
                for method in ("HEAD", "GET"):
                    status, body = client.ask(method, f"/api/artifacts/{one}")
                    check(status == 200, f"{method} on a full disk: {status}")
            check(server.json("GET", "/_frag/health")[0] == 200, "health on a full disk")
            # Somebody makes room, on a mount that only the server sees.
            pathlib.Path(f"/proc/{server.pid()}/root{state}/ballast").unlink()
            one = client.create("y" * 100_000)
            for one in [one, *stored]:
                check(client.ask("GET", f"/api/artifacts/{one}")[0] == 200, "reading afterwards")
                check(client.ask("DELETE", f"/api/artifacts/{one}")[0] == 200, "deleting afterwards")
            print(f"a disk of {DISK}: full after {len(stored)} artifacts of 100 kB with 500, then well again")


def browse(scenario, server, chromium, modules):
    environment = dict(os.environ, CHROMIUM=chromium, NODE_MODULES=str(modules))
    base = f"http://{frag.LOOPBACK}:{server.control_port}"
    ran = subprocess.run(["node", frag.HERE / "artifacts.mjs", scenario, base], env=environment, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{scenario}: exit code {ran.returncode}")


@contextlib.contextmanager
def controlled(*flags):
    """A server with a control listener: a front end expects its files at the root."""
    (port,) = frag.free_ports(1)
    with frag.Server("sleep 9999", "--control", f"{frag.LOOPBACK}:{port}", *flags) as server:
        server.control_port = port
        yield server


def test_in_a_browser():
    chromium = browser.find_chromium()
    if chromium is None or shutil.which("node") is None or shutil.which("npm") is None:
        print("no Chromium, node or npm: the viewer is not looked at")
        return
    try:
        modules = browser.install_node_modules() / "node_modules"
    except SystemExit as skipped:
        print(f"the viewer is not looked at ({skipped})")
        return
    with controlled() as server:
        for scenario in ("kinds", "texts", "hostile"):
            browse(scenario, server, chromium, modules)
    out = os.environ.get("AGENT_RENDER_OUT")
    if out is None:
        print("frontend: skipped, AGENT_RENDER_OUT names no export of it")
        return
    with controlled("--viewer-dir", str(pathlib.Path(out).resolve())) as server:
        browse("frontend", server, chromium, modules)


def main():
    test_sixteen_at_once()
    test_full_disk()
    if frag.SMALL_SCALE:
        print("the viewer is looked at in full runs only")
    else:
        test_in_a_browser()


if __name__ == "__main__":
    sys.exit(main())
