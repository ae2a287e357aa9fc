#!/usr/bin/env python3
"""The server as PID 1 of a pid namespace, as in a container: it reaps, passes signals on, tells exit
codes, and takes everything along when it ends."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess
import time

import frag

PID_ONE = frag.unshare("--pid", "--mount-proc")
ORPHANS = 200 if frag.SMALL_SCALE else 1000
AT_ONCE = 8
FORWARDED = ["HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT"]
# What ends a process that does not care: all but CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH, and
# 32 and 33, which the C library keeps for itself.
FATAL = [n for n in [*range(1, 32), *range(34, 65)] if n not in (17, 18, 19, 20, 21, 22, 23, 28)]
SLACK_SECONDS = 4
# Before this the program may not have come to its handlers.
EARLY_MS = 20


def exit_code(port, script):
    """Runs a shell script as the app, to the end of both."""
    command = [*PID_ONE, os.environ["FRAG_BIN"], "--command", f"sh -c '{script}'", "--host", frag.LOOPBACK]
    command += ["--port", "0", "--subprocess-port", str(port), "--max-restarts", "0", "--exit-on-failure"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    return run.returncode


def exit_codes():
    # Nobody gets ready: a free port which stays free.
    port = frag.free_ports(1)[0]
    expected = {f"exit {code}": code for code in range(256)}
    expected |= {f"ulimit -c 0; kill -{number} $$": 128 + number for number in FATAL}
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        seen = dict(zip(expected, pool.map(lambda script: exit_code(port, script), expected)))
    wrong = {script: (code, seen[script]) for script, code in expected.items() if seen[script] != code}
    assert not wrong, f"script: (expected, seen): {wrong}"
    print(f"{len(expected)} exits told as they were: codes 0 to 255, {len(FATAL)} signals as 128 + n")


def zombies(server):
    us = server.pid()
    return [pid for pid, (parent, state) in frag.processes().items() if parent == us and state == "Z"]


def orphans():
    with frag.Server(frag.app("orphans", ORPHANS), wrapper=PID_ONE) as server:
        server.wait_ready()
        us = server.pid()
        # The app is the only one left.
        children = lambda: [p for p, (parent, _) in frag.processes().items() if parent == us]
        frag.wait_for(lambda: len(children()) == 1, 20, "every orphan is reaped")
        assert not zombies(server)
        assert server.stop() == 0
    print(f"{ORPHANS} orphans: none left, no zombie")


def forwarding():
    with frag.Server(frag.app("record"), wrapper=PID_ONE) as server:
        server.wait_ready()
        for name in FORWARDED:
            server.signal(getattr(signal, "SIG" + name))
            frag.wait_for((server.root / f"gotSIG{name}").exists, 5, f"SIG{name} reaches the app")
        assert server.json("GET", "/_frag/status")[1]["restarts"] == 0
    print("passed on:", *FORWARDED)


def ends(wrapper, number, *flags, twice=False):
    """A tree that is deaf to SIGTERM; returns how long its end took, and the exit code."""
    with frag.Server(frag.app("tree"), *flags, wrapper=wrapper) as server:
        frag.wait_for((server.root / "pids").exists, 10, "the tree stands")
        inside = list(map(int, (server.root / "pids").read_text().split()))
        # Pids as seen from here.
        pids = descendants(server.pid()) if wrapper else inside
        assert len(pids) >= len(inside), (pids, inside)
        began = time.monotonic()
        server.signal(number)
        if twice:
            frag.wait_for(lambda: "ending: told to" in server.log.read_text(), 5, "it ends")
            began = time.monotonic()
            server.signal(number)
        code = server.wait()
        took = time.monotonic() - began
        left = [pid for pid in pids if frag.runs(pid)]
        assert not left, f"{left} outlived us"
        return took, code


def descendants(root):
    table = frag.processes()
    found, queue = [], [root]
    while queue:
        parent = queue.pop()
        below = [pid for pid, (above, _) in table.items() if above == parent]
        found += below
        queue += below
    return found


def terminations():
    for name, wrapper in (("PID 1", PID_ONE), ("a subreaper", [])):
        for number in (signal.SIGTERM, signal.SIGINT):
            took, code = ends(wrapper, number, "--stop-grace", "500ms")
            assert code == 0 and 0.5 <= took < 0.5 + SLACK_SECONDS, (name, number.name, code, took)
            print(f"{name}, {number.name}: a deaf tree is gone after {took:.2f} s (grace 0.5 s), exit 0")
            took, code = ends(wrapper, number, "--stop-grace", "1h", twice=True)
            assert code == 1 and took < SLACK_SECONDS, (name, number.name, code, took)
            print(f"{name}, {number.name} twice: gone after {took:.2f} s (grace 1 h), exit 1")


def early_signals():
    """A SIGTERM soon after the start is heard; before the program runs there is nobody to hear it."""
    with frag.Server("sleep 100000", wrapper=PID_ONE) as server:
        assert server.stop() == 0, "as soon as it listens"
    lost = []
    for delay_ms in [0, 1, 2, 5, 10, 20, 30, 50] * 2:
        with frag.Server("sleep 100000", wrapper=PID_ONE) as server:
            server.stop()
            server.process = subprocess.Popen(server.argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            us = wait_for_exec(server.process.pid)
            time.sleep(delay_ms / 1000)
            os.kill(us, signal.SIGTERM)
            try:
                assert server.process.wait(1) == 0
            except subprocess.TimeoutExpired:
                lost.append(delay_ms)
    late = [delay for delay in lost if delay >= EARLY_MS]
    assert not late, f"lost {late} ms after the start"
    print(f"an early SIGTERM is heard; lost after {lost} ms")


def wait_for_exec(parent):
    """The pid of this process's child, as soon as it is the server; without a pause, every ms counts."""
    name = os.path.basename(os.environ["FRAG_BIN"])[:15]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError):
            child = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0]
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == name:
                return int(child)
    raise SystemExit("the program does not run")


def spoil_signals():
    """What a careless parent hands down."""
    blocked = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, 34, 64]
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGPIPE, signal.SIGCHLD, 35):
        signal.signal(number, signal.SIG_IGN)


def dispositions():
    for wrapper in (PID_ONE, []):
        # grep is the app itself: a shell or python would change its own.
        app = "grep -H ^Sig /proc/self/status"
        flags = ("--max-restarts", "0")
        with frag.Server(app, *flags, wrapper=wrapper, before=spoil_signals) as server:
            failed = lambda: server.json("GET", "/_frag/status")[1]["status"] == "failed"
            frag.wait_for(failed, 10, "the app ended")
            text = server.log.read_text()
            for name in ("SigBlk", "SigIgn"):
                assert f"{name}:\t{0:016x}" in text, text
            # And for ourselves they mean what they always mean.
            assert server.stop() == 0
        with frag.Server(frag.app("orphans", 50), wrapper=wrapper, before=spoil_signals) as server:
            server.wait_ready()
            frag.wait_for(lambda: not zombies(server), 10, "no zombies with SIGCHLD blocked and ignored")
    print("signals blocked and ignored by our parent: not for the app, nor for us")


for test in (orphans, forwarding, dispositions, terminations, early_signals, exit_codes):
    test()
