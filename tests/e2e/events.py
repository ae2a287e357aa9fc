#!/usr/bin/env python3
"""The event streams as client libraries see them, and under load.

* python's httpx-sse, npm's eventsource and the EventSource of Chromium read them; npm's fast-json-patch
  makes of 10,000 random changes what GET state says (events.mjs has the side of Node and Chromium).
  EVENTS_ONE_BY_ONE=1 compares after each single change instead of after some of them: ten minutes.
* 500 cut connections during 50,000 events: nothing is lost or doubled, or a gap is told.
* 1,000 listeners while 200 changes a second happen, one of which does not read.

What it needs comes from PyPI and the npm registry into a cache; skipped where Node or Chromium are
missing. CI=true does the second alone, with fewer events: it needs nothing and measures no time.
"""

import http.client
import json
import os
import pathlib
import random
import select
import shutil
import socket
import subprocess
import sys
import time

import browser
import frag

CHANGES = 1000 if frag.SMALL_SCALE else 10_000
EVENTS = 5_000 if frag.SMALL_SCALE else 50_000
CUTS = EVENTS // 100
LISTENERS = 200 if frag.SMALL_SCALE else 1000
CROWD_SECONDS = 10
MEASURED = 50
STALL_SECONDS = 70
LATE_SECONDS = 0.250
MOST_KIB = 48 * 1024
ADMIN = {"x-verified-user-data": '{"role":"admin"}'}
PYTHON_PACKAGES = ("httpx", "httpx-sse")
NODE_PACKAGES = ("eventsource@^4", "fast-json-patch@^3.1", "playwright-core@^1.50")
AGENT = pathlib.Path(__file__).with_name("event_agent.py")


def server(*flags, **more):
    return frag.Server("sleep 1000", "--trust-identity-header", *flags, **more)


def post(connection, path, body):
    connection.request("POST", "/_frag" + path, body=json.dumps(body), headers=ADMIN)
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, (response.status, answer)


def note(connection, payload):
    post(connection, "/dispatch", {"action": {"type": "NOTE", "payload": payload}})


# -- client libraries


def install_python():
    folder = browser.CACHE / "events-python"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES]
    recipe = " ".join(PYTHON_PACKAGES) + sys.version
    browser.install(folder, recipe, [sys.executable, "-m", "venv", folder], pip)
    return folder / "bin" / "python"


def install_node():
    folder = browser.CACHE / "events-node"
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", *NODE_PACKAGES]
    browser.install(folder, " ".join(NODE_PACKAGES), npm)
    return folder / "node_modules"


HTTPX = """
import json, sys, httpx
from httpx_sse import connect_sse
base, wanted = sys.argv[1], int(sys.argv[2])
with httpx.Client(timeout=30) as client, connect_sse(client, "GET", base + "/_frag/events") as source:
    seen = 0
    for event in source.iter_sse():
        data = event.json()
        assert data["type"] == event.event and event.id.isdigit() and event.retry is None
        if event.event == "state.initial":
            assert seen == 0
            print("listening", flush=True)
        seen += 1
        if event.event == "state.update" and data["slice"] == "agent" and f"note {wanted}" in event.data:
            break
print(f"httpx-sse: {seen} events")
"""


def python_client():
    python = install_python()
    with server() as ours:
        base = f"http://{frag.LOOPBACK}:{ours.port}"
        client = subprocess.Popen([python, "-c", HTTPX, base, "99"], stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline() == "listening\n"
        connection = ours.connect()
        for n in range(100):
            note(connection, {"text": f"note {n}"})
        print(client.communicate(timeout=30)[0].strip())
        assert client.returncode == 0, client.returncode


def node(modules, scenario, ours, *arguments):
    environment = dict(os.environ, NODE_MODULES=str(modules), CHROMIUM=browser.find_chromium())
    base = f"http://{frag.LOOPBACK}:{ours.port}"
    script = frag.HERE / "events.mjs"
    ran = subprocess.run(["node", script, scenario, base, *map(str, arguments)], env=environment, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{scenario}: exit code {ran.returncode}")


# -- coming back


class Stream:
    """One connection to a stream, read event by event."""

    def __init__(self, ours, path, after=None):
        self.socket = socket.create_connection((frag.LOOPBACK, ours.port), 30)
        resume = f"Last-Event-ID: {after}\r\n" if after else ""
        self.socket.sendall(f"GET /_frag{path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t\r\n{resume}\r\n".encode())
        self.reader = self.socket.makefile("rb")
        assert self.reader.readline().startswith(b"HTTP/1.1 200 ")
        while self.reader.readline() != b"\r\n":
            pass
        self.text = b""

    def next(self):
        """(name, data, id); None at the proper end."""
        while b"\n\n" not in self.text:
            size = int(self.reader.readline(), 16)
            self.text += self.reader.read(size)
            self.reader.readline()
            if size == 0:
                return None
        event, _, self.text = self.text.partition(b"\n\n")
        name, data, number = event.split(b"\n")
        return name[7:].decode(), json.loads(data[6:]), int(number[4:])

    def cut(self):
        self.reader.close()
        self.socket.close()


def resume():
    """Cuts connections in the middle of an agent's flood of numbered events."""
    flags = ["--agent", f"{sys.executable} {AGENT} {EVENTS} 4000", "--event-ring", "1024"]
    with server(*flags, environment={"FRAG_TOKEN": "t"}) as ours:
        stream = Stream(ours, "/stream/actions")
        headers = {"Authorization": "Bearer t"}
        assert ours.request("POST", "/_frag/invoke", b'{"input":"go"}', headers)[0] == 200
        cuts = gaps = slow = missed = 0
        last_number, last_id = -1, 0
        dice = random.Random(7)
        cut_at = dice.randrange(1, EVENTS // CUTS)
        began = time.monotonic()
        fresh = False
        while True:
            event = stream.next()
            if event is None:
                # Too slow, says the server: come back where we were.
                slow += 1
                stream.cut()
                stream = Stream(ours, "/stream/actions", last_id)
                continue
            name, data, number = event
            if name == "heartbeat":
                continue
            if name == "state.initial":
                assert number > last_id, "a gap is told once"
                fresh, last_id = True, number
                # The end may be in the gap, too.
                if data["slices"]["execution"]["status"] == "completed":
                    last_number = EVENTS - 1
                    break
                continue
            assert number > last_id, f"{number} after {last_id}: doubled"
            last_id = number
            if name == "execution.status" and data["status"] != "started":
                assert data["status"] == "completed", data
                break
            if name != "action" or data["action"]["type"] != "COUNT":
                continue
            count = data["action"]["payload"]["n"]
            if fresh:
                assert count > last_number
                gaps, missed, fresh = gaps + 1, missed + count - last_number - 1, False
            else:
                assert count == last_number + 1, f"{count} after {last_number}: lost or doubled, and not told"
            last_number = count
            if count >= cut_at and cuts < CUTS:
                cuts += 1
                cut_at = count + dice.randrange(1, EVENTS // CUTS)
                stream.cut()
                if cuts % 50 == 0:
                    # Long enough for the ring to forget.
                    time.sleep(0.4)
                stream = Stream(ours, "/stream/actions", last_id)
        assert last_number == EVENTS - 1 and cuts >= CUTS * 0.8, (last_number, cuts)
        assert gaps >= CUTS // 50 - 1, "the long absences were gaps"
        took = time.monotonic() - began
        print(f"{EVENTS} events in {took:.1f} s, {cuts} cuts: none lost or doubled unsaid; "
              f"{gaps} gaps of {missed} events together, each told; {slow} times told to be too slow")


# -- many listeners


def listen(port, count):
    """Opens that many streams of the state: (poller, {number: [socket, text so far]})."""
    poller, sockets = select.epoll(), {}
    for _ in range(count):
        client = socket.create_connection((frag.LOOPBACK, port), 30)
        client.sendall(b"GET /_frag/stream/state HTTP/1.1\r\nHost: h\r\n\r\n")
        client.setblocking(False)
        sockets[client.fileno()] = [client, b""]
        poller.register(client.fileno(), select.EPOLLIN)
    return poller, sockets


def throw_away(port, count):
    """Most of the listeners, in a process of their own: Python cannot look at every event in time."""
    poller, sockets = listen(port, count)
    print("listening", flush=True)
    while True:
        for number, _ in poller.poll():
            try:
                if not sockets[number][0].recv(1 << 18):
                    raise SystemExit("a listener that reads was dropped")
            except BlockingIOError:
                pass


def drive(port, seconds):
    """200 changes a second."""
    connection = http.client.HTTPConnection(frag.LOOPBACK, port)
    began, changes = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        note(connection, {"text": f"change {changes}"})
        changes += 1
        pause = began + changes / 200 - time.monotonic()
        if pause > 0:
            time.sleep(pause)
    print(f"{changes / (time.monotonic() - began):.0f}")


def measure(poller, sockets, until):
    """How late each event is, in milliseconds."""
    late = []
    while time.monotonic() < until:
        for number, _ in poller.poll(0.05):
            entry = sockets[number]
            try:
                data = entry[0].recv(1 << 18)
            except BlockingIOError:
                continue
            assert data, "a listener that reads was dropped"
            now, text, at = time.time() * 1000, entry[1] + data, -1
            # The time stands at the end of each event's data.
            while (at := text.find(b'"timestamp":', at + 1)) >= 0:
                stamp = text[at + 12 : at + 25]
                if text[at + 25 : at + 27] == b"}\n" and stamp.isdigit():
                    late.append(now - int(stamp))
            end = text.rfind(b"\n\n")
            entry[1] = text[end:] if end >= 0 else text
    return sorted(late)


def apart(*arguments):
    """One of the functions above in a process of its own."""
    words = [sys.executable, str(pathlib.Path(__file__).resolve()), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def crowd():
    with server("--max-streams", "3000", "--max-connections", "4096") as ours:
        before = ours.memory_kib()
        others = apart("throw_away", ours.port, LISTENERS - MEASURED)
        assert others.stdout.readline() == "listening\n"
        poller, sockets = listen(ours.port, MEASURED)
        # One who asks and never reads, behind the smallest buffer there is.
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stalled.connect((frag.LOOPBACK, ours.port))
        stalled.sendall(b"GET /_frag/stream/state HTTP/1.1\r\nHost: h\r\n\r\n")
        measure(poller, sockets, time.monotonic() + 2)
        idle = ours.memory_kib()
        driver = apart("drive", ours.port, STALL_SECONDS)
        began, cpu = time.monotonic(), cpu_seconds(ours)
        late = measure(poller, sockets, began + CROWD_SECONDS)
        took, busy, rss = time.monotonic() - began, cpu_seconds(ours) - cpu, ours.memory_kib()
        # The one that stalls is cut once it has taken nothing for ten seconds of waiting.
        dropped = False
        while not dropped and driver.poll() is None:
            measure(poller, sockets, time.monotonic() + 0.2)
            dropped = is_closed(stalled)
        assert others.poll() is None
        others.kill()
        driver.kill() if dropped else driver.wait()
        share, rate = late[int(len(late) * 0.99)], len(late) / took / MEASURED
        print(f"{LISTENERS} listeners, 200 changes/s: {rate:.1f} events/s each; median {late[len(late) // 2]:.0f} ms late, "
              f"99 % {share:.0f} ms, latest {late[-1]:.0f} ms; RSS {before} KiB alone, {idle} KiB idle, {rss} KiB busy; "
              f"CPU {busy / took * 100:.0f} % of one; the stalled one {'was dropped' if dropped else 'is still there'}")
        assert rate <= 21, "more than 20 flushes a second"
        assert share < LATE_SECONDS * 1000, "too late"
        assert rss <= MOST_KIB, "too much memory"
        assert dropped


def is_closed(client):
    """Whether the other side has ended, whatever is still to be read."""
    poller = select.poll()
    poller.register(client, select.POLLRDHUP)
    return bool(poller.poll(0))


def cpu_seconds(ours):
    fields = pathlib.Path("/proc", str(ours.pid()), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    if frag.SMALL_SCALE and len(sys.argv) == 1:
        return resume()
    if browser.find_chromium() is None:
        browser.skip("no Chromium")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            browser.skip(f"no {program}")
    modules = install_node()
    only = sys.argv[1:]
    if not only or "clients" in only:
        python_client()
        with server() as ours:
            node(modules, "patches", ours, CHANGES)
        with server("--heartbeat", "1s") as ours:
            node(modules, "eventsource", ours)
        with server("--heartbeat", "1s") as ours:
            node(modules, "chromium", ours)
    if not only or "resume" in only:
        resume()
    if not only or "crowd" in only:
        crowd()


if __name__ == "__main__":
    if sys.argv[1:2] in (["throw_away"], ["drive"]):
        globals()[sys.argv[1]](*map(int, sys.argv[2:]))
    else:
        main()
