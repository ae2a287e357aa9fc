#!/usr/bin/env python3
"""The library `websockets` on both sides of us: messages, pings, subprotocols, close codes, half-closes, a
server that is killed, and a thousand tunnels at once beside which everything else stays quick and we stay small.

Installs the library from PyPI into an environment of its own; skipped when that cannot be reached.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
VENV = pathlib.Path(tempfile.gettempdir(), f"frag-e2e-websockets-{os.getuid()}")
PYTHON = VENV / "bin" / "python"

if pathlib.Path(sys.prefix) != VENV:
    probe = [PYTHON, "-I", "-c", "import websockets"]
    if not PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode == 0
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "websockets>=14"]
        if not made or subprocess.run(pip, timeout=120).returncode != 0:
            print("the library `websockets` cannot be installed")
            sys.exit(SKIPPED)
    # Isolated, because this file has the library's name.
    os.execv(PYTHON, [PYTHON, "-I", __file__])

import asyncio
import itertools
import signal
import socket as socket_library
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

sys.path.append(str(HERE))
import frag

TUNNELS = 200 if frag.SMALL_SCALE else 1000
MOST_RSS_KIB = 40 * 1024
MOST_MS = 100
MIB = 1 << 20
OPTIONS = {"max_size": 8 * MIB, "compression": None, "ping_interval": None, "proxy": None, "open_timeout": 30}

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

# In a process of its own: this one is busy with a thousand clients.
QUICK = """
import http.client, sys, time
times = []
for n in range(200):
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    connection.request("GET", "/" if n % 2 else "/_frag/status")
    response = connection.getresponse()
    response.read()
    assert response.status == 200, response.status
    times.append((time.perf_counter() - start) * 1000)
    connection.close()
times.sort()
print(times[len(times) // 2], times[-3], times[-1])
"""


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")


async def talk(server, path="/echo", **options):
    return await connect(f"ws://{frag.LOOPBACK}:{server.port}{path}", **OPTIONS, **options)


async def messages(server):
    async with await talk(server) as socket:
        for message in ["text", "", "gr\u00fc\u00dfe \U0001f600", b"\x00\xff" * 3, b"", "x" * 125, "x" * 126, b"x" * 65536]:
            await socket.send(message)
            check(await socket.recv() == message, f"echo of {message[:20]!r}")
        for size in [MIB, MIB + 1, 4 * MIB - 7]:
            message = os.urandom(size)
            await socket.send(message)
            check(await socket.recv() == message, f"echo of {size} bytes")
        await socket.send(iter(["in ", "three ", "frames"]))
        check(await socket.recv() == "in three frames", "a fragmented message")
        for payload in [b"", b"ping", b"p" * 125]:
            await asyncio.wait_for(await socket.ping(payload), 5)
        many = [f"message {n}" for n in range(2000)]
        sender = asyncio.create_task(send_all(socket, many))
        check([await socket.recv() for _ in many] == many, "order of many messages")
        await sender


async def send_all(socket, messages):
    for message in messages:
        await socket.send(message)


async def handshakes(server):
    async with await talk(server, "/chat", subprotocols=["other", "chat"]) as socket:
        check(socket.subprotocol == "chat", f"subprotocol {socket.subprotocol}")
    try:
        await talk(server, "/refuse")
        check(False, "a refusal opened a tunnel")
    except InvalidStatus as error:
        check(error.response.status_code == 403 and error.response.body == b"no\n", f"refusal {error}")


async def closes(server):
    for code, reason in [(1000, "bye"), (1001, "away"), (3000, ""), (4999, "r" * 100)]:
        socket = await talk(server)
        await socket.send(f"close {code} {reason}")
        try:
            await socket.recv()
            check(False, "a closed connection has a message")
        except ConnectionClosed:
            check((socket.close_code, socket.close_reason) == (code, reason), f"{socket.close_code} from the server")
        socket = await talk(server)
        await socket.close(code, reason)
        # The client is done before the server's handler is.
        wanted, until = (200, f"{code} {reason}".encode()), time.monotonic() + 5
        while (text := await asyncio.to_thread(server.request, "GET", "/closed")) != wanted:
            check(time.monotonic() < until, f"{code} from the client: {text}")


def half_closed(port, frames):
    """Sends everything and ends its own way at once; all that comes back until the other end."""
    with socket_library.create_connection((frag.LOOPBACK, port), timeout=10) as raw:
        raw.sendall(HANDSHAKE)
        came = b""
        while b"\r\n\r\n" not in came:
            came += raw.recv(4096)
        raw.sendall(frames)
        raw.shutdown(socket_library.SHUT_WR)
        came = came.partition(b"\r\n\r\n")[2]
        while piece := raw.recv(65536):
            came += piece
    return came


async def half_closes(server):
    mask, text = bytes(4), b"last words"
    asked = bytes([0x81, 0x80 | len(text)]) + mask + text
    close = bytes([0x88, 0x82]) + mask + (1000).to_bytes(2, "big")
    answer = bytes([0x88, 2]) + (1000).to_bytes(2, "big")
    for name, frames in [("a message and a close", asked + close), ("a close", close)]:
        ports = (server.app_port, server.port)
        direct, through = [await asyncio.to_thread(half_closed, port, frames) for port in ports]
        check(direct.endswith(answer), f"direct, a half-close after {name}: {direct!r}")
        check(through == direct, f"a half-close after {name}: direct {direct!r}, through us {through!r}")


async def killed(server):
    socket = await talk(server)
    pid = (await asyncio.to_thread(server.json, "GET", "/_frag/status"))[1]["pid"]
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    try:
        await asyncio.wait_for(socket.recv(), 5)
        check(False, "a killed server has a message")
    except ConnectionClosed as error:
        check(not isinstance(error, ConnectionClosedOK), "a killed server closed in order")
    print(f"killed server seen after {(time.monotonic() - began) * 1000:.0f} ms")
    async with await talk(server) as socket:
        await socket.send("again")
        check(await socket.recv() == "again", "echo after the restart")


async def quick(server, what):
    command = [sys.executable, "-I", "-c", QUICK, str(server.port)]
    run = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await run.communicate()
    check(run.returncode == 0, f"requests {what}")
    median, high, highest = map(float, out.split())
    print(f"HTTP and status {what}: median {median:.1f} ms, 99 % {high:.1f} ms, highest {highest:.1f} ms")
    return high


async def crowd(server):
    idle = server.memory_kib()
    began = time.monotonic()
    sockets = []
    for start in range(0, TUNNELS, 50):
        sockets += await asyncio.gather(*(talk(server) for _ in range(start, min(start + 50, TUNNELS))))
    print(f"{len(sockets)} tunnels in {time.monotonic() - began:.1f} s")

    async def exchange(socket, message):
        await socket.send(message)
        echo = await socket.recv()
        check(echo == message, f"echo in the crowd: {len(echo)} of {len(message)}, {echo[:20]!r}")

    opened = server.memory_kib()
    for round in range(3):
        await asyncio.gather(*(exchange(socket, f"{round} {n}") for n, socket in enumerate(sockets)))
    check(await quick(server, "beside idle tunnels") < MOST_MS, f"over {MOST_MS} ms beside idle tunnels")

    over = asyncio.Event()

    async def chatter():
        for n in itertools.count():
            if over.is_set():
                return
            await exchange(sockets[n * 7 % len(sockets)], "chatter")
            await asyncio.sleep(0.005)

    task = asyncio.create_task(chatter())
    check(await quick(server, "beside talking ones") < MOST_MS, f"over {MOST_MS} ms beside talking tunnels")
    # Not cancelled: an echo nobody took would be the next exchange's.
    over.set()
    await task
    busy = server.memory_kib()
    # What a burst of larger messages leaves behind.
    for n in range(0, len(sockets), 50):
        await asyncio.gather(*(exchange(socket, b"x" * 100_000) for socket in sockets[n : n + 50]))
    burst = server.memory_kib()
    print(f"RSS: idle {idle} KiB, opened {opened}, after messages {busy}, after 100 kB each {burst}, highest {server.memory_kib('VmHWM')}")
    check(max(busy, burst) <= MOST_RSS_KIB, f"{busy} and {burst} KiB with {len(sockets)} tunnels")
    began = time.monotonic()
    code = await asyncio.to_thread(server.stop)
    took = time.monotonic() - began
    print(f"ended with {code} after {took:.1f} s")
    check(code == 0 and took < 5, "the end beside tunnels")
    for socket in sockets:
        await socket.wait_closed()


async def main(server):
    await asyncio.to_thread(server.wait_ready)
    for part in [messages, handshakes, closes, half_closes, killed, crowd]:
        began = time.monotonic()
        await part(server)
        print(f"{part.__name__}: passed, {time.monotonic() - began:.1f} s")


with frag.Server(f"{PYTHON} -I {HERE / 'websocket_app.py'}") as server:
    asyncio.run(main(server))
