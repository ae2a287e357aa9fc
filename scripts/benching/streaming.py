"""What a browser notices besides pages: how soon a large answer begins, how long a WebSocket's message takes
there and back, how fast an upload reaches the wrapped server."""

import collections
import os
import random
import re
import socket
import statistics
import time

from .configurations import LOOPBACK
from .processes import say
from .relaying import LARGE, LARGE_BYTES

FIRST_BYTES, ECHOES = 300, 2000
ECHO_BYTES = 64
# Of the standard's own example, RFC 6455 section 1.2.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def connect(target):
    connection = socket.create_connection((LOOPBACK, target.port), 30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(connection, data=b""):
    """Reads a response's head, of which this much is there; also returns what came behind it."""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionError(f"closed after {data!r}")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def first_bytes(target, count):
    """Microseconds from a request for the large file to its first byte, on one kept connection."""
    times = []
    with connect(target) as connection:
        request = f"GET /{LARGE} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode()
        room = bytearray(LARGE_BYTES)
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(request)
            first = connection.recv(1)
            times.append((time.perf_counter() - began) * 1e6)
            answer, rest = head(connection, first)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(answer)
            left = LARGE_BYTES - len(rest)
            while left:
                taken = connection.recv_into(room, left)
                if not taken:
                    raise ConnectionError(f"{left} bytes short")
                left -= taken
    return times


def echoes(target, count):
    """Microseconds from a message to its echo, on one WebSocket."""
    payload = bytes(range(ECHO_BYTES))
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    frame, expected = bytes((0x82, 0x80 | ECHO_BYTES)) + mask + masked, bytes((0x82, ECHO_BYTES)) + payload
    times = []
    with connect(target) as connection:
        connection.sendall(
            f"GET /echo HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )
        answer, rest = head(connection)
        if not answer.startswith(b"HTTP/1.1 101 ") or rest:
            raise ConnectionError(answer)
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(frame)
            got = b""
            while len(got) < len(expected):
                chunk = connection.recv(4096)
                if not chunk:
                    raise ConnectionError("closed")
                got += chunk
            times.append((time.perf_counter() - began) * 1e6)
            if got != expected:
                raise ConnectionError(f"another frame: {got!r}")
    return times


def upload(target, source):
    """Seconds for the file as a request's body to the wrapped server, which counts it."""
    size = os.path.getsize(source)
    began = time.perf_counter()
    with connect(target) as connection, open(source, "rb") as file:
        connection.sendall(
            f"POST /upload HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: {size}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        connection.sendfile(file)
        answer, body = head(connection)
        while chunk := connection.recv(4096):
            body += chunk
    if not answer.startswith(b"HTTP/1.1 200 ") or not re.search(rb"\b%d\b" % size, body):
        raise ConnectionError(answer + body[:200])
    return time.perf_counter() - began


class Samples:
    """Of one measure, by server; one that cannot do it has its error instead."""

    def __init__(self, what, measure):
        self.what, self.measure = what, measure
        self.taken, self.failed = collections.defaultdict(list), {}

    def round(self, targets, number):
        shift = number % len(targets)
        for target in targets[shift:] + targets[:shift]:
            if target.name in self.failed:
                continue
            try:
                if number == 0:
                    self.measure(target)
                self.taken[target.name] += self.measure(target)
            except OSError as error:
                self.failed[target.name] = error
                say(f"{self.what}, {target.name}: {error}")

    def print(self, targets):
        reference = statistics.median(self.taken["nginx"])
        for target in targets:
            taken = self.taken[target.name]
            if target.name in self.failed:
                print(f"| {self.what} | {target.name} | fails | – | – |")
            else:
                p50 = statistics.median(taken)
                p99 = statistics.quantiles(taken, n=100)[98]
                print(f"| {self.what} | {target.name} | {p50:.0f} | {p50 / reference:.2f} | {p99:.0f} |")


def print_streaming(files, apps, rounds):
    begin = Samples("first byte of 1 MiB", lambda target: first_bytes(target, FIRST_BYTES))
    echo = Samples(f"WebSocket echo of {ECHO_BYTES} B", lambda target: echoes(target, ECHOES))
    for number in range(rounds):
        begin.round(files, number)
        echo.round(apps, number)
        say(f"round {number + 1} of first bytes and echoes")
    print("| case, one connection | server | p50 µs | × nginx | p99 µs |")
    print("|---|---|--:|--:|--:|")
    begin.print(files)
    echo.print(apps)


def print_relayed_uploads(stage, apps, mebibytes, times):
    source = stage.directory / "relayed.bin"
    with open(source, "wb") as file:
        for _ in range(mebibytes):
            file.write(random.randbytes(1 << 20))
    seconds = Samples("upload", lambda target: [upload(target, source)])
    for number in range(times):
        seconds.round(apps, number)
    source.unlink()
    print(f"| {mebibytes} MiB to the wrapped server, median of {times} | seconds | MiB/s | × nginx |")
    print("|---|--:|--:|--:|")
    reference = statistics.median(seconds.taken["nginx"])
    for target in apps:
        if target.name in seconds.failed:
            print(f"| {target.name} | fails | – | – |")
            continue
        took = statistics.median(seconds.taken[target.name])
        print(f"| {target.name} | {took:.3f} | {mebibytes / took:.0f} | {reference / took:.2f} |")
