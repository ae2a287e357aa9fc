#!/usr/bin/env python3
"""Everything at once for a long time: small GETs, 10 MiB bodies, event streams, WebSockets, uploads, restarts, kills,
and clients that break off. No error that the load did not cause, and memory, descriptors and threads are flat.

`scripts/soak` runs it for 30 minutes, FRAG_SOAK_MINUTES for another number; without either it is one minute. The first sixth
warms up (five minutes of thirty). Flat means: of what follows, the highest of the last third is no higher than the
highest of the second third and a margin, and when the load is over threads and descriptors are back.
"""

import base64
import collections
import hashlib
import http.client
import os
import pathlib
import random
import socket
import struct
import sys
import threading
import time
import traceback

import frag

MINUTES = float(os.environ.get("FRAG_SOAK_MINUTES", "1"))
SECONDS = MINUTES * 60
WARM_SECONDS = SECONDS / 6
LARGE_BYTES = 10 << 20
RESTART_SECONDS = min(20, SECONDS / 6)
PATIENCE_SECONDS = 60
# What one more stream or buffer more or less makes; a leak of one a request is thousands.
MARGINS = {"RSS KiB": 4096, "descriptors": 40, "threads": 24}
BACK_SECONDS = 60


class Unlucky(Exception):
    """An end that a restart or a kill may have caused: fine if there was one."""


class Soak:
    def __init__(self, server):
        self.server = server
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.done = collections.Counter()
        self.excused = collections.Counter()
        self.faults = []
        # When lives of the app ended, by a restart or a kill; what is under way then may suffer.
        self.disturbed_until = 0

    def work(self, client, number):
        """One client, over and over; each call of it is one exchange."""
        name = client.__name__
        while not self.over.is_set():
            began = time.monotonic()
            try:
                client(self, number)
                outcome = self.done
            except Unlucky as end:
                if self.disturbed_until > began:
                    outcome = self.excused
                else:
                    outcome = None
                    self.fault(f"{name}: {end} without a restart")
            except Exception as error:
                outcome = None
                self.fault(f"{name}: {error!r} {traceback.format_exc(limit=-3)}")
            with self.lock:
                if outcome is not None:
                    outcome[name] += 1

    def fault(self, text):
        with self.lock:
            self.faults.append(f"after {time.monotonic() - self.began:.0f} s {text}")

    def pause(self, seconds):
        self.over.wait(seconds * random.uniform(0.5, 1.5))

    def connect(self):
        return socket.create_connection((frag.LOOPBACK, self.server.port), PATIENCE_SECONDS)


def small(soak, number):
    """GETs on a kept connection: a restart may delay them, and nothing may lose one."""
    connection = soak.server.connect(PATIENCE_SECONDS)
    try:
        for _ in range(50):
            began_answer = False
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                began_answer = True
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                if began_answer:
                    raise Unlucky(f"cut: {error!r}") from error
                raise
            assert (response.status, body) == (200, b"crowd\n"), (response.status, body)
            with soak.lock:
                soak.done["small GETs"] += 1
            soak.pause(0.01)
    finally:
        connection.close()


def large_down(soak, number):
    connection = soak.server.connect(PATIENCE_SECONDS)
    try:
        connection.request("GET", f"/bytes/{LARGE_BYTES}")
        response = connection.getresponse()
        assert response.status == 200, response.status
        total = 0
        while piece := response.read(1 << 18):
            total += len(piece)
        if total != LARGE_BYTES:
            raise Unlucky(f"cut after {total}")
    except (OSError, http.client.HTTPException) as error:
        raise Unlucky(f"cut: {error!r}") from error
    finally:
        connection.close()
    soak.pause(0.5)


BODY = os.urandom(LARGE_BYTES)


def large_up(soak, number):
    connection = soak.server.connect(PATIENCE_SECONDS)
    try:
        connection.request("POST", "/", body=BODY)
        response = connection.getresponse()
        body = response.read()
        # 502: the app ended with some of the body in it. 503 is never right: it is coming back.
        if response.status == 502:
            raise Unlucky("502")
        assert (response.status, body) == (200, b"%d\n" % LARGE_BYTES), (response.status, body)
    except (OSError, http.client.HTTPException) as error:
        raise Unlucky(f"cut: {error!r}") from error
    finally:
        connection.close()
    soak.pause(0.5)


def events(soak, number):
    with soak.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        seen, expected = b"", random.randrange(5, 200)
        while seen.count(b"data: tick") < expected and not soak.over.is_set():
            try:
                piece = connection.recv(65536)
            except OSError as error:
                raise Unlucky(f"cut: {error!r}") from error
            if not piece:
                raise Unlucky(f"ended after {seen.count(b'data: tick')} events")
            seen += piece
        assert seen.startswith(b"HTTP/1.1 200 "), seen[:200]


def websocket(soak, number):
    with soak.connect() as connection:
        key = base64.b64encode(os.urandom(16))
        head = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        connection.sendall(head + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
        try:
            received = b""
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                if not piece:
                    raise Unlucky("ended before the agreement")
                received += piece
            assert received.startswith(b"HTTP/1.1 101 "), received[:200]
            received = received.partition(b"\r\n\r\n")[2]
            for _ in range(random.randrange(1, 60)):
                message = os.urandom(random.randrange(1, 20_000))
                connection.sendall(message)
                while len(received) < len(message):
                    piece = connection.recv(65536)
                    if not piece:
                        raise Unlucky("a tunnel ended")
                    received += piece
                assert received == message, "other bytes came back"
                received = b""
                soak.pause(0.05)
                if soak.over.is_set():
                    return
        except OSError as error:
            raise Unlucky(f"cut: {error!r}") from error


def upload(soak, number):
    """What was answered 200 is read back the same; no restart is an excuse."""
    name, data = f"soak{number}-{random.randrange(20)}", os.urandom(random.randrange(200_000))
    status, answer = soak.server.json("PUT", f"/_frag/upload/{name}", body=data)
    assert status == 200 and answer["sha256"] == hashlib.sha256(data).hexdigest(), (status, answer)
    assert soak.server.request("GET", f"/_frag/files/{name}") == (200, data)
    soak.pause(0.1)


def watcher(soak, number):
    for path in ("/_frag/status", "/_frag/logs?tail=100", "/_frag/health"):
        status, body = soak.server.request("GET", path)
        # Between two lives it does not run, and status says so.
        assert status == 200 or (path == "/_frag/status" and status == 503), (path, status, body)
    soak.pause(0.5)


def abort(soak, number):
    """Breaks off somewhere, half of the times with a reset."""
    with soak.connect() as connection:
        kind = random.randrange(6)
        if kind == 0:
            connection.sendall(b"GET / HT")
        elif kind == 1:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 5000)
        elif kind == 2:
            connection.sendall(b"GET /bytes/10000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(1000)
        elif kind == 3:
            connection.sendall(b"PUT /_frag/upload/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + b"x" * 9000)
        elif kind == 4:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        else:
            connection.sendall(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        soak.pause(0.02)
        if random.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    soak.pause(0.02)


def disturb(soak, number):
    """Restarts; every third time kills the app instead."""
    soak.pause(RESTART_SECONDS)
    if soak.over.is_set():
        return
    # What began before and ends after it may suffer: set ahead, and once more when it is over.
    soak.disturbed_until = float("inf")
    if soak.done["disturb"] % 3 == 2:
        pid = soak.server.json("GET", "/_frag/status")[1]["pid"]
        if pid:
            os.kill(pid, 9)
        soak.server.wait_ready()
    else:
        status, body = soak.server.request("POST", "/_frag/restart?wait=ready")
        assert status == 200, (status, body)
    # Streams notice within a second.
    time.sleep(1)
    soak.disturbed_until = time.monotonic()


CLIENTS = {small: 8, large_down: 2, large_up: 2, events: 20, websocket: 20, upload: 2, watcher: 1, abort: 4, disturb: 1}


def sample(server):
    process = pathlib.Path("/proc", str(server.pid()))
    threads, descriptors = (len(list((process / name).iterdir())) for name in ("task", "fd"))
    return {"RSS KiB": server.memory_kib(), "descriptors": descriptors, "threads": threads}


def watch(soak, seconds):
    """A sample a second: [(time, figures)]; says the highest of each minute."""
    samples, minute = [], []
    while (elapsed := time.monotonic() - soak.began) < seconds:
        minute.append(sample(soak.server))
        samples.append((elapsed, minute[-1]))
        if len(minute) == 60:
            highest = {name: max(one[name] for one in minute) for name in MARGINS}
            print(f"{elapsed / 60:4.0f} min: {highest}, {sum(soak.done.values())} exchanges, {len(soak.faults)} faults", flush=True)
            minute = []
        time.sleep(1)
    return samples


def check_flat(samples):
    """The faults of it. The thirds are those of all the time, the first of them without what warms up."""
    problems = []
    third = SECONDS / 3
    parts = {
        "first": (WARM_SECONDS, third),
        "second": (third, 2 * third),
        "last": (2 * third, SECONDS + 1),
    }
    for name, margin in MARGINS.items():
        highest = {
            part: max(figures[name] for at, figures in samples if start <= at < end)
            for part, (start, end) in parts.items()
        }
        print(f"{name}: highest of each third after {WARM_SECONDS:.0f} s {list(highest.values())}")
        if highest["last"] > highest["second"] + margin:
            problems.append(f"{name} is not flat: {highest}")
    return problems


def main():
    app = f"{sys.executable} {frag.HERE / 'soak_app.py'}"
    with frag.Server(app, "--hold-timeout", "30s", "--drain", "5s") as server:
        server.wait_ready()
        before = sample(server)
        soak = Soak(server)
        soak.began = time.monotonic()
        threads = [
            threading.Thread(target=soak.work, args=(client, number))
            for client, count in CLIENTS.items()
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            samples = watch(soak, SECONDS)
        finally:
            soak.over.set()
            for thread in threads:
                thread.join()
        print(f"{MINUTES:g} minutes: {dict(soak.done)}; ended by a restart or a kill: {dict(soak.excused)}")
        problems = check_flat(samples)
        status = server.json("GET", "/_frag/status")[1]
        print(f"restarts and kills: {status['restarts']}")
        for client in CLIENTS:
            if not soak.done[client.__name__]:
                problems.append(f"{client.__name__} never succeeded")
        if not status["restarts"]:
            problems.append("nothing was ever restarted")

        def is_back():
            now = sample(server)
            return now["threads"] <= before["threads"] + 4 and now["descriptors"] <= before["descriptors"] + 8

        frag.wait_for(is_back, BACK_SECONDS, f"threads and descriptors are back: {before}, {sample(server)}")
        print(f"before {before}, after {sample(server)}")
        problems += soak.faults[:20]
        if problems:
            raise SystemExit("\n".join(problems))


main()
