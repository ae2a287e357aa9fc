"""Memory, idle connections, the time to start."""

import contextlib
import socket
import statistics
import subprocess
import time

from .configurations import LOOPBACK
from .processes import START_SECONDS, end, free_port, rss_kib
from .relaying import SMALL, SMALL_BODY

IDLE_CONNECTIONS = 1000


def print_start(binary, stage, times=20):
    """From exec to the first accepted connection, with a wrapped server that does nothing."""
    seconds = []
    for _ in range(times):
        port = free_port()
        argv = [binary, "--command", "sleep 1000", "--host", LOOPBACK]
        argv += ["--port", str(port), "--subprocess-port", str(free_port())]
        began = time.monotonic()
        process = subprocess.Popen(
            argv, cwd=stage.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection((LOOPBACK, port), 1).close()
                    break
                if time.monotonic() - began > START_SECONDS:
                    raise SystemExit("start: it does not listen")
            seconds.append(time.monotonic() - began)
        finally:
            end(process)
    print(f"From exec to listening: {statistics.median(seconds) * 1e3:.1f} ms (median of {times}).")


def idle_connections(target):
    """KiB more for so many kept connections after a request on each."""
    before = rss_kib(target.process)
    held = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            connection = socket.create_connection((LOOPBACK, target.port), 5)
            held.append(connection)
            connection.sendall(f"GET /{SMALL} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(SMALL_BODY):
                chunk = connection.recv(65536)
                if not chunk:
                    raise SystemExit(f"{target.name}: idle connection {len(held)} was closed")
                answer += chunk
        return rss_kib(target.process) - before
    finally:
        for connection in held:
            connection.close()


def print_memory(targets, idle):
    print(f"| server | RSS idle, KiB | RSS after the run, KiB | {IDLE_CONNECTIONS} idle connections, KiB more |")
    print("|---|--:|--:|--:|")
    for target in targets:
        after = rss_kib(target.process)
        print(f"| {target.name} | {idle[target.name]} | {after} | {idle_connections(target)} |")
