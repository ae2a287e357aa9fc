#!/usr/bin/env python3
"""Everything hostile at once, one kind after another, and beside each a well-behaved client: it is served in
time, so is `/_frag/status`, our memory stays bounded, and afterwards threads, descriptors and memory are back.

`scripts/abuse` runs it in full; CI=true takes fewer clients and less time. Names of kinds as arguments run
only those. slowhttptest's kinds are left out where it is not installed.
"""

import collections
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE))
import frag

# On a machine that others use at the same time only a standstill says something.
MOST_MS = {"/": 2000, "/_frag/status": 1000} if frag.SMALL_SCALE else {"/": 200, "/_frag/status": 100}
DIRECT = "past us"
MOST_RSS_KIB = 64 * 1024
SECONDS = 2 if frag.SMALL_SCALE else 15
AFTER_SECONDS = 1 if frag.SMALL_SCALE else 5
BACK_SECONDS = 90
SCALE = 8 if frag.SMALL_SCALE else 1
PROBES_A_SECOND = 50

# kind of client: how many at a time
CLIENTS = {
    "idle": 5000,
    "silent": 4000,
    "reset": 1000,
    "never_reads": 300,
    "reads_a_byte": 300,
    "sends_a_byte": 300,
    "uploads_a_byte": 300,
    "never_answered": 600,
    "large_heads": 1500,
    "large_head": 50,
    "many_fields": 50,
    "endless_extension": 50,
    "endless_trailers": 50,
    "enormous_length": 50,
}
SLOWHTTPTEST = {"slow_headers": "-H", "slow_bodies": "-B", "slow_ranges": "-R", "slow_readers": "-X"}
SLOW_CONNECTIONS = 4000
HELD = 600
# Requests while every other accept fails.
ABORTED = 100
# Any that nobody has processes of.
NOBODY = 54321
THREADS_AND_PROCESSES = 40


def probe(port, app_port, seconds):
    """A client that does nothing wrong: every other request on a connection of its own. One of ten goes to
    the wrapped server past us, to tell its slowness from ours."""
    times, failures = {path: [] for path in [*MOST_MS, DIRECT]}, []
    kept = None
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        if number % 10 == 0:
            times[DIRECT].append(past_us(app_port))
        path = list(MOST_MS)[number % 2]
        began = time.perf_counter()
        try:
            if kept is None or number % 4 < 2:
                kept = http.client.HTTPConnection(frag.LOOPBACK, port, timeout=10)
            kept.request("GET", path)
            response = kept.getresponse()
            response.read()
            if response.status != 200:
                failures.append(f"{path}: {response.status}")
        except OSError as error:
            failures.append(f"{path}: {error!r}")
            kept = None
        took = time.perf_counter() - began
        times[path].append(took * 1000)
        time.sleep(max(0, 1 / PROBES_A_SECOND - took))
    print(json.dumps([times, failures]))


def past_us(app_port):
    began = time.perf_counter()
    connection = http.client.HTTPConnection(frag.LOOPBACK, app_port, timeout=10)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()
    return (time.perf_counter() - began) * 1000


def resources(server):
    threads = len(list(pathlib.Path("/proc", str(server.pid()), "task").iterdir()))
    descriptors = len(list(pathlib.Path("/proc", str(server.pid()), "fd").iterdir()))
    return threads, descriptors, server.memory_kib()


def command_of(kind, port):
    if kind in SLOWHTTPTEST:
        count = str(SLOW_CONNECTIONS // SCALE)
        url = f"http://{frag.LOOPBACK}:{port}/bytes/1000000"
        words = ["slowhttptest", SLOWHTTPTEST[kind], "-c", count, "-r", count, "-u", url]
        return words + ["-i", "1", "-l", str(SECONDS + AFTER_SECONDS), "-w", "10", "-y", "20", "-n", "1", "-z", "5"]
    count = str(max(10, CLIENTS[kind] // SCALE))
    return [sys.executable, str(HERE / "abuser.py"), kind, str(port), count, str(SECONDS + AFTER_SECONDS)]


def suffer(server, kind):
    before = resources(server)
    with frag.MemoryWatch(server, 0.1) as watch:
        abuser = subprocess.Popen(command_of(kind, server.port), stdout=subprocess.PIPE, text=True)
        if kind in CLIENTS:
            abuser.stdout.readline()
        else:
            time.sleep(1)
        probed = subprocess.run(
            [sys.executable, __file__, "probe", str(server.port), str(server.app_port), str(SECONDS)],
            stdout=subprocess.PIPE,
            check=True,
        )
        most = resources(server)
        out, _ = abuser.communicate(timeout=120)
    times, failures = json.loads(probed.stdout)
    high = {path: statistics.quantiles(list_of, n=100)[98] for path, list_of in times.items()}
    highest_rss = watch.highest_kib
    tally = f", {out.strip()} clients" if kind in CLIENTS else ""
    figures = ", ".join(f"{path} {statistics.median(times[path]):.1f} / {high[path]:.1f} ms" for path in times)
    print(f"{kind}: {figures}, RSS {highest_rss} KiB, threads {watch.highest_threads}, descriptors {most[1]}{tally}", flush=True)
    # What is slow past us as well is the machine.
    slow = [path for path in MOST_MS if high[path] > MOST_MS[path] + high[DIRECT]]
    problems = [f"{path}: 99 % within {high[path]:.0f} ms, {high[DIRECT]:.0f} past us" for path in slow]
    problems += failures[:3]
    if highest_rss > MOST_RSS_KIB:
        problems.append(f"RSS {highest_rss} KiB")

    if not frag.SMALL_SCALE:
        wait_until_back(server, before, kind)
    return [f"{kind}: {problem}" for problem in problems]


def wait_until_back(server, before, kind):
    """A thread that nobody needs waits ten seconds before it ends."""

    def is_back():
        now = resources(server)
        return now[0] <= before[0] + 4 and now[1] <= before[1] + 8

    frag.wait_for(is_back, BACK_SECONDS, f"threads and descriptors are back after {kind}")


def starved(limit, count, user=None):
    def before():
        resource.setrlimit(limit, (count, count))
        # The number of threads binds no root.
        if user:
            os.setgid(user)
            os.setuid(user)

    return before


def survive(name, before, note, python=sys.executable):
    """Starts us short of something and asks more of us than we can do: we serve before and after."""
    with frag.Server(f"{python} {HERE / 'crowd_app.py'}", before=before) as server:
        server.wait_ready()
        command = command_of("idle", server.port)
        command[-2:] = ["300", "3"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=120)
        frag.wait_for(lambda: server.request("GET", "/") == (200, b"crowd\n"), 30, f"served again: {name}")
        status, body = server.json("GET", "/_frag/status")
        if status != 200 or body["restarts"] != 0:
            return [f"{name}: {status} {body}"]
        print(f"{name}: {note}, served before and after", flush=True)
    return []


def aborted():
    """Connections that are gone before they are accepted: every other accept fails."""
    if not shutil.which("strace"):
        print("without strace no accept is made to fail")
        return []
    with frag.Server("sleep 100000") as server:
        fault = ["-e", "trace=accept4", "-e", "inject=accept4:error=ECONNABORTED:when=1+2"]
        command = ["strace", "-f", *fault, "-p", str(server.pid()), "-o", os.devnull]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # It says when it is attached.
        tracer.stderr.readline()
        answers = collections.Counter(server.request("GET", "/_frag/status")[0] for _ in range(ABORTED))
        tracer.terminate()
        tracer.communicate()
        number = server.request("GET", "/_frag/metrics")[1].decode()
        failed = float(re.search(r"^frag_http_accept_errors_total ([0-9.]+)$", number, re.MULTILINE)[1])
    print(f"aborted: {failed:.0f} failed accepts, {answers}", flush=True)
    return [] if answers == {200: ABORTED} and failed >= ABORTED / 2 else ["aborted: not all were served"]


def hold():
    """Requests to an app that never gets ready: held without a thread each, then told."""
    count = HELD // SCALE
    with frag.Server("sleep 100000", "--hold-timeout", "20s") as server, frag.MemoryWatch(server, 0.1) as watch:
        # Those of its pools come after it has said that it listens.
        threads = frag.settled(lambda: server.status_number("Threads"))
        clients = [server.connect() for _ in range(count)]
        for client in clients:
            client.request("GET", "/")
        began = time.perf_counter()
        status = server.json("GET", "/_frag/status")[1]["status"]
        took = (time.perf_counter() - began) * 1000
        # Those that brought them there wait ten seconds for more, then end.
        without_threads = lambda: server.status_number("Threads") <= threads + 4
        frag.wait_for(without_threads, 18, "requests are held without threads")
        answers = {client.getresponse().status for client in clients}
    print(f"held: {count} requests, status in {took:.1f} ms, RSS {watch.highest_kib} KiB, then {answers}", flush=True)
    problems = [] if answers == {503} and status == "starting" else [f"held: {answers} {status}"]
    if watch.highest_kib > MOST_RSS_KIB or took > MOST_MS["/_frag/status"]:
        problems.append(f"held: {watch.highest_kib} KiB, {took:.0f} ms")
    return problems


def main(chosen):
    kinds = list(CLIENTS)
    if shutil.which("slowhttptest") and not frag.SMALL_SCALE:
        kinds += list(SLOWHTTPTEST)
    else:
        print("without slowhttptest its four kinds are left out")
    problems = []
    with frag.Server(f"{sys.executable} {HERE / 'crowd_app.py'}") as server:
        server.wait_ready()
        print(f"at first: threads, descriptors, RSS KiB {resources(server)}; milliseconds are median / 99 %")
        before = resources(server)
        for kind in chosen or kinds:
            problems += suffer(server, kind)
        wait_until_back(server, before, "all of it")
        _, status = server.json("GET", "/_frag/status")
        print(f"at last: {resources(server)}, restarts {status['restarts']}")
        if server.memory_kib() > MOST_RSS_KIB:
            problems.append(f"at last {server.memory_kib()} KiB")
        if status["restarts"] != 0:
            problems.append("the wrapped server was restarted")
    if not chosen:
        problems += hold()
        problems += aborted()
        problems += survive("64 descriptors", starved(resource.RLIMIT_NOFILE, 64), "300 connections")
        # Ours may be in a home that is closed to others.
        python = shutil.which("python3", path="/usr/bin:/bin")
        if os.getuid() == 0 and python:
            limit = starved(resource.RLIMIT_NPROC, THREADS_AND_PROCESSES, NOBODY)
            problems += survive(f"{THREADS_AND_PROCESSES} threads and processes", limit, "300 connections", python)
        else:
            print("threads cannot be made scarce without being root")
    if problems:
        raise SystemExit("\n".join(problems))


if sys.argv[1:2] == ["probe"]:
    probe(*map(int, sys.argv[2:]))
else:
    main(sys.argv[1:])
