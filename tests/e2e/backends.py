#!/usr/bin/env python3
"""Apps that start late or never, say nothing, stand still, flood, fork away, or leave others behind:
the server stays quick about itself and serves as soon as there is something to serve."""

import os
import pathlib
import signal
import socket
import threading
import time

import frag

# A machine with other work to do is no fault of ours; what a hung app causes is far longer.
QUICK_SECONDS = 2
FLAT_KIB = 4096


def status(server):
    """The status, which must come at once whatever the app does."""
    began = time.monotonic()
    answer = server.json("GET", "/_frag/status")[1]
    took = time.monotonic() - began
    assert took < QUICK_SECONDS, f"status took {took:.2f} s"
    return answer


def state(server):
    return status(server)["status"]


class Request:
    """GET in a thread of its own."""

    def __init__(self, server, path="/"):
        self.answer = None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.run, args=(server, path))
        self.thread.start()

    def run(self, server, path):
        self.answer = server.request("GET", path)
        self.took = time.monotonic() - self.began

    def result(self):
        self.thread.join(30)
        assert self.answer, "no answer"
        return self.answer


def late():
    with frag.Server(frag.app("web", 5)) as server:
        held = [Request(server) for _ in range(20)]
        assert state(server) == "starting"
        for request in held:
            assert request.result()[0] == 200, request.answer
            assert 4 < request.took < 9, request.took
        print(f"binds after 5 s: 20 held requests served, the last after {max(r.took for r in held):.1f} s")


def never():
    with frag.Server(frag.app("never"), "--hold-timeout", "2s") as server:
        request = Request(server)
        assert state(server) == "starting"
        code, body = request.result()
        assert code == 503 and b"server_unavailable" in body, (code, body)
        assert 2 <= request.took < 3, request.took
        code, page = server.request("GET", "/", headers={"Accept": "text/html"})
        assert code == 503 and page.startswith(b"<!doctype html>")
        assert server.request("GET", "/_frag/await?timeout=1")[0] == 503
        assert state(server) == "starting"
        print(f"never binds: 503 after {request.took:.2f} s (hold 2 s), starting all the while")


def mute():
    with frag.Server(frag.app("mute"), "--drain", "100ms", "--stop-grace", "1s") as server:
        server.wait_ready()
        clients = [server.connect(timeout=None) for _ in range(300)]
        for client in clients:
            client.request("GET", "/")
        for _ in range(20):
            assert state(server) == "ready"
        began = time.monotonic()
        assert server.request("POST", "/_frag/restart")[0] == 200
        took = time.monotonic() - began
        for client in clients:
            client.close()
        assert took < 3, took
        print(f"accepts and says nothing: status quick beside {len(clients)} waiting, restarted in {took:.2f} s")


def stopped():
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        pid = status(server)["pid"]
        os.kill(pid, signal.SIGSTOP)
        request = Request(server)
        for _ in range(20):
            assert state(server) == "ready"
            time.sleep(0.05)
        assert not request.answer
        os.kill(pid, signal.SIGCONT)
        assert request.result() == (200, str(pid).encode())
        # What stands still does not hear SIGTERM, but ends all the same.
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert server.request("POST", "/_frag/restart?wait=ready")[0] == 200
        print(f"SIGSTOP: status quick, served after SIGCONT; restarted in {time.monotonic() - began:.1f} s")
        assert server.request("GET", "/")[1] != str(pid).encode()


def flood():
    server = frag.Server(frag.app("flood"))
    # Its output would fill the disk.
    server.log = pathlib.Path("/dev/null")
    with server:
        server.wait_ready()
        # Time for the ring of lines to fill.
        time.sleep(2)
        before = server.memory_kib()
        for _ in range(30):
            assert state(server) == "ready"
            assert server.request("GET", "/")[0] == 200
            time.sleep(0.1)
        after = server.memory_kib()
        assert after - before < FLAT_KIB, (before, after)
        print(f"floods stdout: {before} KiB after 2 s, {after} KiB after 5 s")
        assert server.stop() == 0


def daemon():
    with frag.Server(frag.app("daemon"), "--max-restarts", "3") as server:
        states = set()
        deadline = time.monotonic() + 15
        while "failed" not in states and time.monotonic() < deadline:
            states.add(state(server))
            time.sleep(0.01)
        assert "failed" in states and "port_busy" not in states, states
        assert status(server)["exit"]["code"] == 0
        print("forks away: that is an exit with code 0, and it is started again")


def leftover():
    with frag.Server(frag.app("leftover", 1)) as server:
        frag.wait_for(lambda: status(server)["restarts"] == 1, 10, "the next life")
        pid = int((server.root / "daemon").read_text())
        frag.wait_for(lambda: not frag.runs(pid), 1, "what the first life left is gone")
        assert server.request("GET", "/_frag/await?timeout=2")[0] == 503, "ready by an earlier life's listener"
    print("leaves one behind that would listen later: gone before the next life begins")


def escape(server):
    """Lets the app leave a listener to a process in another session; its pid."""
    file = server.root / "escaped"
    file.unlink(missing_ok=True)
    assert server.request("GET", "/escape")[0] == 200
    frag.wait_for(file.exists, 5, "it has escaped")
    return int(file.read_text())


def escaped():
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        first = status(server)["pid"]
        grandchild = escape(server)
        os.kill(first, signal.SIGKILL)
        frag.wait_for(lambda: status(server)["pid"] not in (None, first), 10, "the next life")
        server.wait_ready()
        second = status(server)["pid"]
        assert not frag.runs(grandchild), "it lives and may hold the port"
        for _ in range(20):
            assert server.request("GET", "/") == (200, str(second).encode())
        print("leaves a listener in another session: killed as adopted, the next life serves")
        # The same when it is restarted, while requests come.
        escape(server)
        assert server.request("POST", "/_frag/restart?wait=ready")[0] == 200
        third = status(server)["pid"]
        for _ in range(20):
            assert server.request("GET", "/") == (200, str(third).encode())
        print("and so on a restart")


def stranger():
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        assert server.request("POST", "/_frag/stop")[0] == 200
        with socket.create_server((frag.LOOPBACK, server.app_port)):
            code, body = server.request("POST", "/_frag/start")
            assert code != 200 and state(server) == "port_busy", (code, body)
            assert server.request("GET", "/_frag/await?timeout=1")[0] == 503
        server.wait_ready()
        assert server.request("GET", "/")[0] == 200
        print("a stranger on the port: port_busy, never ready; served once it is free")


def closer():
    with frag.Server(frag.app("web")) as server:
        server.wait_ready()
        pid = status(server)["pid"]
        assert server.request("GET", "/close")[0] == 200
        frag.wait_for(lambda: not frag.listens(server.app_port), 5, "it closes")
        request = Request(server)
        frag.wait_for(lambda: state(server) == "starting", 0.9, "starting again")
        assert request.result() == (200, str(pid).encode())
        now = status(server)
        assert (now["status"], now["pid"], now["restarts"]) == ("ready", pid, 0), now
        print(f"closes its listener for a second: starting, then served after {request.took:.2f} s, same process")


for test in (late, never, mute, stopped, flood, daemon, leftover, escaped, stranger, closer):
    test()
