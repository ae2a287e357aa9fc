#!/usr/bin/env python3
"""The worker runtime with the clients people use: the library `websockets` and the npm package `ws`.

Resuming by cursor through hundreds of connections, hundreds of observers, one that takes nothing, pings,
digests against an implementation of their own, what is left after kill -9 at any moment, and that
hundreds of workers leave nothing behind. On a small scale nothing is said of times.
Installs the library into an environment of its own; skipped when that cannot be reached.
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "frag-e2e", "workers")
PYTHON = CACHE / "venv" / "bin" / "python"

if pathlib.Path(sys.prefix) != CACHE / "venv":
    probe = [PYTHON, "-I", "-c", "import websockets"]
    if not PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        CACHE.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", CACHE / "venv"]).returncode == 0
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "websockets>=14"]
        if not made or subprocess.run(pip, timeout=120).returncode != 0:
            print("the library `websockets` cannot be installed")
            sys.exit(SKIPPED)
    # Isolated, because a file beside this one has the library's name.
    os.execv(PYTHON, [PYTHON, "-I", __file__, *sys.argv[1:]])

import asyncio
import contextlib
import hashlib
import http.client
import json
import random
import shutil
import socket
import string
import tempfile
import threading
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

sys.path.append(str(HERE))
import frag

SMALL = frag.SMALL_SCALE
RECONNECTS, EVENTS = (50, 1_000) if SMALL else (500, 20_000)
# The library, not we, is the one that cannot take much more than 5,000 messages a second.
OBSERVERS, OBSERVED = (50, 30) if SMALL else (200, 300)
KILLS = 12 if SMALL else 200
WORKERS = 100 if SMALL else 500
BUNDLES = 50 if SMALL else 200
TOKEN = "secret"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
ASSISTANT = {"intent": {"kind": "assistant"}, "profile": {"kind": "runtime_default"}}
OPTIONS = {"additional_headers": HEADERS, "compression": None, "proxy": None, "max_queue": 4096}
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
dice = random.Random(SEED)


def check(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what} (SEED={SEED})")


def runtime(command, *flags):
    return frag.Server("sleep 1000", "--worker", f"runtime_default={command}", *flags, environment={"FRAG_TOKEN": TOKEN})


def app():
    return f"{sys.executable} {HERE / 'worker_app.py'}"


def ask(server, method, path, body=None):
    text = None if body is None else json.dumps(body)
    status, answer = server.json(method, f"/_frag/v1{path}", body=text, headers=HEADERS)
    check(status == 200, f"{method} {path}: {status} {answer}")
    return answer


def create(server):
    return ask(server, "POST", "/workers", ASSISTANT)["worker"]["worker_id"]


def tell(server, worker, content):
    ask(server, "POST", f"/workers/{worker}/input", {"kind": "user", "content": content})


def url(server, worker, cursor=None):
    place = f"?cursor={cursor}" if cursor else ""
    return f"ws://{frag.LOOPBACK}:{server.port}/_frag/v1/workers/{worker}/events/ws{place}"


def observe(server, worker, cursor=None):
    return connect(url(server, worker, cursor), **OPTIONS)


async def receive(watched):
    return json.loads(await asyncio.wait_for(watched.recv(), 60))


async def reconnect(server):
    """Comes back with the last cursor again and again, while events keep coming."""
    worker = create(server)
    tell(server, worker, f"count {EVENTS} 0.1 50")
    cursor, seen, connections, over = "wo_0000000000000000", [], 0, False
    each = EVENTS // RECONNECTS
    while not over:
        connections += 1
        async with observe(server, worker, cursor) as watched:
            snapshot = (await receive(watched))["envelope"]
            check(snapshot["event_id"] == f"snapshot:{cursor}", f"{snapshot['event_id']} after {cursor}")
            check(snapshot["payload"]["event"] == "snapshot", "a snapshot comes first")
            for _ in range(each):
                envelope = (await receive(watched))["envelope"]
                check(envelope["cursor"] == envelope["event_id"] > cursor, f"{envelope['cursor']} after {cursor}")
                cursor, payload = envelope["cursor"], envelope["payload"]
                if payload["event"] == "text_delta":
                    seen.append(int(payload["data"]["text"].split(" ")[0]))
                over = payload["event"] == "run_end"
                if over:
                    break
    check(seen == list(range(1, EVENTS + 1)), f"{len(seen)} of {EVENTS} events, {len(set(seen))} different")
    check(connections >= RECONNECTS, f"{connections} connections")
    print(f"{EVENTS} events over {connections} connections: none lost, none twice")


async def crowd(server):
    """Many observers of one worker: all see everything, and soon."""
    worker = create(server)
    before = server.memory_kib()
    sockets = [await observe(server, worker) for _ in range(OBSERVERS)]
    for watched in sockets:
        await receive(watched)
    delays, counts = [], []

    async def follow(watched):
        count = 0
        while True:
            payload = (await receive(watched))["envelope"]["payload"]
            if payload["event"] == "text_delta":
                count += 1
                delays.append(time.time() - float(payload["data"]["text"].split(" ")[1]))
            elif payload["event"] == "run_end":
                counts.append(count)
                return

    tell(server, worker, f"count {OBSERVED} 0.2 5")
    await asyncio.gather(*(follow(watched) for watched in sockets))
    memory = server.memory_kib()
    check(counts == [OBSERVED] * OBSERVERS, f"observers saw {sorted(set(counts))} of {OBSERVED}")
    delays.sort()
    ms = [1000 * delays[int(len(delays) * part)] for part in (0.5, 0.99)]
    print(f"{OBSERVERS} observers saw {OBSERVED} events each: median {ms[0]:.1f} ms, 99 % within {ms[1]:.1f} ms, {memory - before} KiB more")
    for watched in sockets:
        await watched.close()


def stalled_socket(server, worker):
    """An observer that asks and never reads."""
    stalled = socket.create_connection((frag.LOOPBACK, server.port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"GET /_frag/v1/workers/{worker}/events/ws HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    stalled.sendall(head.encode())
    return stalled


def observers(server):
    """How many there are, and one for the listener thread: each has a bell."""
    count = 0
    for descriptor in pathlib.Path("/proc", str(server.pid()), "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += "eventfd" in os.readlink(descriptor)
    return count


async def stall(server):
    """Some take nothing: the others are not delayed, they are dropped, and we stay small."""
    worker, before = create(server), observers(server)
    stalled = [stalled_socket(server, worker) for _ in range(3 if SMALL else 10)]
    async with observe(server, worker) as quick:
        await receive(quick)
        slowest = 0
        for _ in range(30):
            began = time.monotonic()
            tell(server, worker, "pad 50 16000")
            while (await receive(quick))["envelope"]["payload"]["event"] != "run_end":
                pass
            slowest = max(slowest, time.monotonic() - began)
    memory = server.memory_kib("VmHWM")
    frag.wait_for(lambda: observers(server) == before, 40, "those that take nothing are dropped")
    check(SMALL or slowest < 10, f"the quick one waited {slowest:.1f} s for 50 events")
    for one in stalled:
        one.close()
    print(f"{len(stalled)} that took nothing were dropped; 50 events of 16 kB reached the other within {slowest * 1000:.0f} ms each time; {memory} KiB at most")


async def speak(server):
    """A client that sends anything is told once, and closed."""
    worker = create(server)
    for message in ["hello", b"hello"]:
        async with observe(server, worker) as watched:
            await receive(watched)
            await watched.send(message)
            diagnostic = await receive(watched)
            check(diagnostic["diagnostic"]["code"] == "runtime.observation_only", diagnostic)
            try:
                await watched.recv()
                check(False, "it goes on")
            except ConnectionClosed as closed:
                check(closed.rcvd.code == 1008, closed)
    for cursor, code in [("nonsense", "runtime.cursor_malformed"), ("wo_00000000ffffffff", "runtime.cursor_unknown_or_expired")]:
        async with observe(server, worker, cursor) as watched:
            frame = await receive(watched)
            if code != "runtime.cursor_malformed":
                check(frame["envelope"]["event_id"] == f"snapshot:{cursor}", frame)
                frame = await receive(watched)
            check(frame["diagnostic"]["code"] == code, frame)


async def pings(server):
    """An idle observer is pinged, and one that answers nothing is not kept."""
    worker = create(server)
    idle = socket.create_connection((frag.LOOPBACK, server.port))
    head = f"GET /_frag/v1/workers/{worker}/events/ws HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    idle.sendall(head.encode())
    idle.settimeout(1)
    began, pinged, buffer = time.monotonic(), [], b""
    while time.monotonic() - began < 120:
        try:
            data = await asyncio.to_thread(idle.recv, 4096)
        except TimeoutError:
            continue
        except ConnectionResetError:
            data = b""
        if not data:
            break
        buffer += data
        if buffer.endswith(b"\x89\x00"):
            pinged.append(time.monotonic() - began)
    took = time.monotonic() - began
    check(len(pinged) == 1 and 29 < pinged[0] < 40, f"pings after {pinged}")
    check(55 < took < 80, f"one that answers no ping was kept for {took:.0f} s")
    print(f"a ping after {pinged[0]:.0f} s; one that answers none is dropped after {took:.0f} s")


async def python_client(server):
    if not SMALL:
        # It takes more than a minute.
        async with observe(server, create(server)) as idle:
            await receive(idle)
            idle_task = asyncio.create_task(idle.recv())
            await pings(server)
            check(not idle_task.done(), "a client that answers pings is kept")
            idle_task.cancel()
    await speak(server)
    await reconnect(server)
    await crowd(server)
    await stall(server)


def node_client(server):
    if not shutil.which("npm"):
        return print("npm is not there: the package `ws` was not tried")
    folder = CACHE / "npm"
    if not (folder / "node_modules" / "ws").exists():
        folder.mkdir(parents=True, exist_ok=True)
        installed = subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "ws@8"], cwd=folder, timeout=300)
        check(installed.returncode == 0, "npm install ws")
    worker = create(server)
    count = EVENTS // 10
    tell(server, worker, f"count {count} 0.1 50")
    command = ["node", str(HERE / "workers.mjs"), url(server, worker), TOKEN, "40", "run_end"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    check(ran.returncode == 0, ran.stderr[-2000:])
    told = json.loads(ran.stdout)
    # Besides the deltas: status, user_message, run_end.
    check(told["seen"] == count + 3 and told["ordered"], told)
    check(told["snapshots"] == told["connections"] >= count // 40, told)
    print(f"npm ws: {told['seen']} events over {told['connections']} connections, in order")


def digest_of(bundle):
    """Written from the contract's words, not from the server's."""
    meta = bundle["metadata"]
    lines = []
    for key in ("id", "revision", "workspace_id", "created_at"):
        lines.append(f"{key}\0{meta[key]}")
    lines.append("provenance.source\0" + meta["provenance"]["source"])
    lines.append("provenance.detail\0" + (meta["provenance"].get("detail") or ""))
    for profile in bundle["profiles"]:
        selector = profile["selector"]
        key = selector["kind"] if "value" not in selector else f"{selector['kind']}\0{selector['value']}"
        lines.append(f"profile\0{key}\0{profile.get('label') or ''}")
    for one in bundle["declarations"]:
        lines.append(f"declaration\0{one['kind']}\0{one['name']}\0{one['reference']}")
    joined = b"".join(line + b"\n" for line in sorted(line.encode() for line in lines))
    return hashlib.sha256(joined).hexdigest()


def words(least=1, most=20, letters=string.ascii_letters + string.digits + " .:-_@\u00e9\u4e2d\U0001f600\"\\{}"):
    text = "".join(dice.choice(letters) for _ in range(dice.randint(least, most)))
    # What a text may not be: blank, or a place on a machine.
    safe = text.strip(" \\~").replace(":\\", ";").replace(".", ",")
    return safe or "x"


def random_bundle(number):
    plain = string.ascii_letters + string.digits + ":-_.@+"
    prefixes = {"secret_ref": "vault:", "mount_grant": "mount-grant:", "network_policy": "network:", "shell_policy": "shell:", "git_policy": "git-policy:", "capability_grant": "capability:"}
    selectors = [lambda: {"kind": "runtime_default"}, lambda: {"kind": "builtin", "value": "builtin:" + words()}, lambda: {"kind": "named", "value": words()}]

    def maybe(thing, key, value):
        return thing | {key: dice.choice([value, "", None])} if dice.random() < 0.7 else thing

    def declaration():
        kind = dice.choice(list(prefixes))
        tail = "".join(dice.choice(plain) for _ in range(dice.randint(1, 30))).replace(".", "_")
        return {"kind": kind, "name": words(), "reference": prefixes[kind] + tail}

    provenance = maybe({"source": words()}, "detail", words())
    metadata = {"id": f"b{number}" + "".join(dice.choice("ab:.-_") for _ in range(dice.randint(0, 9))), "revision": words(), "workspace_id": words(), "created_at": words(), "provenance": provenance}
    profiles = [maybe({"selector": dice.choice(selectors)()}, "label", words()) for _ in range(dice.randint(0, 6))]
    bundle = {"metadata": metadata, "profiles": profiles, "declarations": [declaration() for _ in range(dice.randint(0, 6))]}
    metadata["digest"] = digest_of(bundle)
    return bundle


def digests(server):
    for number in range(BUNDLES):
        bundle = random_bundle(number)
        text = json.dumps({"bundle": bundle}, ensure_ascii=dice.random() < 0.5)
        status, answer = server.json("POST", "/_frag/v1/config-bundles", body=text.encode(), headers=HEADERS)
        check(status == 200, f"bundle {number}: {answer} for {text}")
        reference = answer["availability"]["reference"]
        check(reference == {"id": bundle["metadata"]["id"], "digest": bundle["metadata"]["digest"]}, answer)
    print(f"{BUNDLES} random bundles have the digest that an implementation of its own gives them")


SHELL_WORKER = """sh -c 'while read -r line; do echo "{\\"event\\":\\"run_end\\",\\"data\\":{\\"result\\":\\"finished\\"}}"; done'"""


def talk_until_killed(server, worker, acknowledged):
    """Inputs, one after the other, until nobody answers."""
    connection = server.connect(10)
    number = 0
    try:
        while True:
            content = f"{worker} {number} " + "y" * dice.randint(0, 2000)
            body = json.dumps({"kind": "user", "content": content})
            connection.request("POST", f"/_frag/v1/workers/{worker}/input", body=body, headers=HEADERS)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                acknowledged.append((worker, content))
                number += 1
            elif response.status != 409:
                return
    except (OSError, http.client.HTTPException):
        return


def transcript(server, worker):
    items, start = [], 0
    while start is not None:
        part = ask(server, "GET", f"/workers/{worker}/transcript?start={start}")["transcript"]
        items += part["items"]
        start = part["next_start"]
    check([item["sequence"] for item in items] == list(range(1, len(items) + 1)), f"the transcript of {worker} has gaps")
    return [item["content"] for item in items]


def kills():
    """What was acknowledged is there after kill -9 at any moment; what is torn or broken costs itself."""
    with tempfile.TemporaryDirectory(prefix="frag-e2e-workers-") as store:
        server = runtime(SHELL_WORKER, "--workers-store", f"fs:{store}", "--log-level", "error", "--max-transcript-items", "10000")
        acknowledged, broken, told, cut = [], set(), 0, 0
        server.start()
        try:
            for _ in range(KILLS):
                worker, mine = create(server), []
                talker = threading.Thread(target=talk_until_killed, args=(server, worker, mine))
                talker.start()
                time.sleep(dice.uniform(0.0, 0.12))
                server.kill()
                talker.join()
                acknowledged += mine
                place = pathlib.Path(store, "runtimes").glob("id-*")
                folder = next(place) / "workers" / ("id-" + worker.encode().hex())
                expected = 0
                fate = dice.random()
                if fate < 0.25 and (folder / "transcript.jsonl").exists():
                    with open(folder / "transcript.jsonl", "ab") as torn:
                        torn.write(b'{"sequence":9999,"worker_r'[: dice.randint(1, 26)])
                    cut += 1
                elif fate < 0.35:
                    (folder / "worker.json").write_text('{"schema_version":1,')
                    broken.add(worker)
                server.start()
                now = ask(server, "GET", "/runtime")["runtime"]["diagnostic_count"]
                check(now > told, f"{now} diagnostics after {told}")
                told = now
                if worker in broken:
                    status, _ = server.json("GET", f"/_frag/v1/workers/{worker}", headers=HEADERS)
                    check(status == 404, f"broken worker {worker}: {status}")
                else:
                    found = transcript(server, worker)
                    missing = [content for _, content in mine if content not in found]
                    check(not missing, f"{len(missing)} acknowledged inputs are missing from {worker}")
                    check(ask(server, "GET", f"/workers/{worker}")["worker"]["status"] == "stopped", worker)
            whole = {}
            for worker, content in acknowledged:
                if worker not in broken:
                    whole.setdefault(worker, []).append(content)
            for worker, contents in whole.items():
                found = transcript(server, worker)
                check(found[: len(contents)] == contents, f"{worker}: another order, or something missing")
                check(len(found) <= len(contents) + 1, f"{worker}: more than was said")
            counted = ask(server, "GET", "/runtime")["runtime"]
            check(counted["worker_count"] == KILLS - len(broken), counted)
            check(server.stop() == 0, "the end in order")
        finally:
            if server.process.poll() is None:
                server.kill()
            server.__exit__(None)
        print(f"{KILLS} kills: {len(acknowledged)} acknowledged inputs all there; {cut} torn ends cut, {len(broken)} broken workers left out, {told} diagnostics")


def leaks():
    """Workers that end in every way leave no thread, no descriptor and no process."""
    with runtime(SHELL_WORKER, "--worker", "builtin:none=/no/such/program", "--worker", "builtin:short=true") as server:
        profiles = [ASSISTANT["profile"], *({"kind": "builtin", "value": f"builtin:{name}"} for name in ("none", "short", "unconnected"))]
        names = ("worker-process", "output", "worker-end")
        look = lambda: (server.descriptors(), [server.threads(name) for name in names])
        before = frag.settled(look)

        def some():
            for number in range(WORKERS // 4):
                request = ASSISTANT | {"profile": profiles[number % 4]}
                worker = ask(server, "POST", "/workers", request)["worker"]["worker_id"]
                if number % 4 == 0:
                    tell(server, worker, f"number {number}")
                ask(server, "POST", f"/workers/{worker}/{dice.choice(['stop', 'cancel'])}", {})

        for thread in [frag.Checked(some) for _ in range(4)]:
            thread.join()
        after = frag.settled(look, 3)
        check(after == before, f"descriptors and threads: {before}, then {after}")
        counted = ask(server, "GET", "/runtime")["runtime"]
        check(counted["active_worker_count"] == 0, counted)
        left = [pid for pid, (parent, state) in frag.processes().items() if parent == server.pid() and state != "Z"]
        check(len(left) == 1, f"besides the wrapped server: {left}")
        print(f"{WORKERS // 4 * 4} workers of every kind: {before[0]} descriptors before and after, no thread and no process more")


def example():
    """The example answers as its README says."""
    with runtime(f"{sys.executable} {HERE.parent.parent / 'examples' / 'worker' / 'worker.py'}") as server:
        worker = create(server)
        tell(server, worker, "good morning")
        frag.wait_for(lambda: len(transcript(server, worker)) == 2, 20, "its answer")
        check(transcript(server, worker)[1] == f"{worker} heard: good morning", "the example's answer")
        check(ask(server, "POST", f"/workers/{worker}/cancel")["ack"]["status"] == "cancelled", "cancel")


if __name__ == "__main__":
    parts = sys.argv[1:] or ["example", "leaks", "digests", "kills", "node", "python"]
    if "example" in parts:
        example()
    if "leaks" in parts:
        leaks()
    if "kills" in parts:
        kills()
    with runtime(app()) as shared:
        if "digests" in parts:
            digests(shared)
        if "node" in parts:
            node_client(shared)
        if "python" in parts:
            asyncio.run(python_client(shared))
        check(shared.stop() == 0, "the end in order")
