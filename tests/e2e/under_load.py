#!/usr/bin/env python3
"""100 planned restarts, and 500 kill -9 of the app, under load: no request is lost that had received no
byte of a response and may be repeated."""

import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import frag

ROUNDS = 10 if frag.SMALL_SCALE else 100
KILLS = 10 if frag.SMALL_SCALE else 500
CONNECTIONS = 32
PATIENCE_SECONDS = 30
# Of load between two restarts; time for every connection to get on.
PAUSE_SECONDS = 0.05
LISTED = 10


class Cut(Exception):
    """A response began and did not end."""


class Load:
    """Clients on kept connections, sending GETs one after the other; counts how each went."""

    def __init__(self, server):
        self.port = server.port
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.outcomes = collections.Counter()
        self.lost = []
        self.answers = [0] * CONNECTIONS
        self.longest = 0
        self.threads = [threading.Thread(target=self.client, args=(n,)) for n in range(CONNECTIONS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def client(self, number):
        connection, received = None, b""
        while not self.over.is_set():
            connection = connection or socket.create_connection((frag.LOOPBACK, self.port), PATIENCE_SECONDS)
            began = time.monotonic()
            try:
                code, body = exchange(connection)
                outcome = "answered" if code == 200 else f"status {code}: {body[:200]!r}"
            except Cut:
                outcome = "cut"
            except OSError as error:
                outcome = f"no byte: {error!r}"
            took = time.monotonic() - began
            if outcome != "answered":
                connection.close()
                connection = None
            with self.lock:
                self.longest = max(self.longest, took)
                self.outcomes[outcome.split(":")[0]] += 1
                if outcome not in ("answered", "cut"):
                    self.lost.append(f"{outcome} after {took:.2f} s")
            self.answers[number] += 1
        if connection:
            connection.close()

    def wait_for_all(self):
        """Until every connection has got an answer to a request it has yet to send."""
        before = list(self.answers)
        moved = lambda: all(now >= then + 2 for now, then in zip(self.answers, before))
        frag.wait_for(moved, PATIENCE_SECONDS, "every client gets on")


def exchange(connection):
    """One GET: (status, body). OSError when no byte of a response came, Cut when some did."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while True:
        try:
            piece = connection.recv(65536)
        except OSError:
            if received:
                raise Cut from None
            raise
        if not piece:
            if received:
                raise Cut
            raise ConnectionResetError("closed")
        received += piece
        head, end, body = received.partition(b"\r\n\r\n")
        if end:
            length = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
            if len(body) >= length:
                return int(head.split()[1]), body


def report(what, load, began):
    counts = ", ".join(f"{count} {outcome}" for outcome, count in load.outcomes.items())
    took = time.monotonic() - began
    print(f"{what}, {CONNECTIONS} connections, {took:.0f} s: {counts}; longest wait {load.longest:.2f} s")
    for line in load.lost[:LISTED]:
        print(f"  lost: {line}")


def planned_restarts():
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        began = time.monotonic()
        with Load(server) as load:
            for _ in range(ROUNDS):
                load.wait_for_all()
                assert server.request("POST", "/_frag/restart?wait=ready")[0] == 200
            load.wait_for_all()
        report(f"{ROUNDS} planned restarts", load, began)
        assert server.json("GET", "/_frag/status")[1]["restarts"] == ROUNDS
        assert not load.lost and not load.outcomes["cut"]


def planned_restarts_under_wrk():
    if not shutil.which("wrk"):
        print("wrk is not installed: not run")
        return
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        command = ["wrk", "-t2", f"-c{CONNECTIONS}", "-d600", f"--timeout={PATIENCE_SECONDS}"]
        command.append(f"http://{frag.LOOPBACK}:{server.port}/")
        wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(0.5)
            for _ in range(ROUNDS):
                time.sleep(PAUSE_SECONDS)
                assert server.request("POST", "/_frag/restart?wait=ready")[0] == 200
            time.sleep(PAUSE_SECONDS)
        finally:
            # It then reports what it has seen.
            wrk.send_signal(signal.SIGINT)
            text = wrk.communicate(timeout=60)[0]
        requests = int(re.search(r"(\d+) requests in", text)[1])
        print(f"{ROUNDS} planned restarts under wrk, {CONNECTIONS} connections: {requests} requests answered")
        assert "Socket errors" not in text and "Non-2xx" not in text, text


def kills():
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        began = time.monotonic()
        with Load(server) as load:
            killed = 0
            while killed < KILLS:
                load.wait_for_all()
                pid = server.json("GET", "/_frag/status")[1]["pid"]
                assert pid, "it waits for its next start"
                os.kill(pid, signal.SIGKILL)
                killed += 1
                alive = lambda: server.json("GET", "/_frag/status")[1]["pid"] not in (None, pid)
                frag.wait_for(alive, PATIENCE_SECONDS, "the next life")
                # Short lives in a row are answered with pauses; something new ends these.
                assert server.request("PUT", "/_frag/upload/note", body=b"x")[0] == 200
            load.wait_for_all()
        report(f"{killed} times kill -9", load, began)
        assert not load.lost


for test in (planned_restarts, planned_restarts_under_wrk, kills):
    test()
