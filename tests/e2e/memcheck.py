#!/usr/bin/env python3
"""A little of everything under valgrind's memcheck: no error, nothing definitely lost.

Needs Debian's valgrind and a binary that is not static, so that it sees malloc: FRAG_BIN if it is one,
else the debug build.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import tempfile
import uuid

import frag

MIB = 1 << 20
HEADERS = {"Authorization": "Bearer t", "Content-Type": "application/json"}
ECHO = frag.HERE.parent.parent / "scripts" / "benching" / "app.py"
# Sixteen bytes, masked with zeros.
FRAME = bytes((0x82, 0x90, 0, 0, 0, 0)) + bytes(range(16))


def expect(server, method, path, status, body=None, headers=HEADERS):
    got, answer = server.request(method, path, body=body, headers=headers)
    assert got == status, f"{method} {path}: {got} {answer[:200]!r}"
    return answer


def relayed(server):
    assert len(expect(server, "GET", f"/bytes/{4 * MIB}", 200)) == 4 * MIB
    assert len(expect(server, "GET", "/chunked/100000", 200)) == 100_000
    expect(server, "HEAD", "/", 501)
    for body in (b"x" * 1000, b"x" * MIB, iter([b"chunk"] * 100)):
        assert json.loads(expect(server, "POST", "/", 200, body=body))["bytes"] in (1000, MIB, 500)


def malformed(server):
    for request in (b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n"):
        with socket.create_connection((frag.LOOPBACK, server.port), 60) as connection:
            connection.sendall(request)
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    with socket.create_connection((frag.LOOPBACK, server.port), 60) as connection:
        connection.sendall(b"GET /bytes/100000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(100)


def files(server):
    own = uuid.uuid4().hex
    for name in (own, f"{own}.new/b"):
        expect(server, "PUT", f"/_frag/upload/{name}", 200, body=b"x" * 100_000)
    expect(server, "GET", f"/_frag/files/{own}.new", 200)
    part = expect(server, "GET", f"/_frag/files/{own}", 206, headers=HEADERS | {"Range": "bytes=10-19"})
    assert part == b"x" * 10
    expect(server, "PUT", "/_frag/upload/../a", 400, body=b"x")
    expect(server, "DELETE", f"/_frag/files/{own}", 204)


def kept(server):
    artifact = json.loads(expect(server, "POST", "/_frag/api/artifacts", 201, body=json.dumps({"payload": "text"})))
    expect(server, "GET", f"/_frag/api/artifacts/{artifact['id']}", 200)
    expect(server, "GET", f"/_frag/{artifact['id']}", 200)


def programs(server):
    stream = expect(server, "POST", "/_frag/exec", 200, body=json.dumps({"args": ["sh", "-c", "echo out; exit 3"]}))
    assert b'"code":3' in stream, stream
    # One at a time.
    assert server.request("POST", "/_frag/invoke", b'{"input":"go"}', HEADERS)[0] in (200, 409)
    frag.wait_for(lambda: server.json("GET", "/_frag/runs", headers=HEADERS)[1], 60, "a run is listed")
    expect(server, "GET", "/_frag/state", 200)


def lives(server):
    expect(server, "POST", "/_frag/interrupt", 200)
    expect(server, "POST", "/_frag/restart?wait=ready", 200)
    for path in ("status", "health", "metrics", "logs", "openapi.json"):
        expect(server, "GET", f"/_frag/{path}", 200)


def tunnelled(server):
    with socket.create_connection((frag.LOOPBACK, server.port), 60) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        for _ in range(100):
            connection.sendall(FRAME)
            assert connection.recv(18, socket.MSG_WAITALL) == bytes((0x82, 16)) + FRAME[6:]


def checked(command, flags, *parts):
    """Runs the parts, three of each at a time, then a new life of the app; memcheck has nothing to say."""
    with tempfile.TemporaryDirectory(prefix="frag-memcheck-") as directory:
        log = pathlib.Path(directory, "log")
        words = ["valgrind", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]
        words += ["--child-silent-after-fork=yes", f"--log-file={log}"]
        flags = [*flags, "--state-dir", f"{directory}/state"]
        with frag.Server(command, *flags, environment={"FRAG_TOKEN": "t"}, wrapper=words) as server:
            # It becomes the server, and starts none.
            server.wrapped_in = False
            expect(server, "GET", "/_frag/await?timeout=60", 200)
            for part in parts:
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    for done in [pool.submit(part, server) for _ in range(3)]:
                        done.result()
            lives(server)
            assert server.stop() == 0
        summary = re.search(r"ERROR SUMMARY: (\d+) errors", log.read_text())
        assert summary and summary[1] == "0", log.read_text()[-8000:]


if not shutil.which("valgrind"):
    frag.skip("valgrind is not installed")
os.environ["FRAG_BIN"] = frag.dynamic_binary()
agent = f"{sys.executable} {frag.HERE / 'event_agent.py'} 20 1000"
checked(frag.sink(), ["--exec", "any", "--agent", agent], relayed, malformed, files, kept, programs)
checked(f"sh -c 'exec {sys.executable} {ECHO} $PORT'", [], tunnelled)
print("no error, nothing definitely lost")
