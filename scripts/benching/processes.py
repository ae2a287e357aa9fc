"""Starts servers in a temporary directory, and looks at what they use."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from .configurations import LOOPBACK

START_SECONDS = 15
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "caddy": "caddy", "wrk": "wrk"}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


class Stage:
    """The temporary directory and the processes of one run; leaving it ends and removes all."""

    def __init__(self, base):
        self.stack = contextlib.ExitStack()
        self.directory = pathlib.Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=base))
        )
        self.stack.callback(self.end_strays)

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.stack.close()

    def end_strays(self):
        """Whoever still has our directory in its arguments was left behind by what we started."""
        for pid in process_table():
            with contextlib.suppress(OSError):
                if str(self.directory).encode() in pathlib.Path("/proc", str(pid), "cmdline").read_bytes():
                    say(f"ending {pid}, which was left behind")
                    os.kill(pid, signal.SIGTERM)

    def make(self, name):
        path = self.directory / name
        path.mkdir()
        return path

    def write(self, name, file, text):
        """Writes a file into a new directory `name`, which `text` (a function) is given."""
        directory = self.make(name)
        path = directory / file
        path.write_text(text(directory))
        return path

    def start(self, name, argv, port):
        """Starts a server in its own process group and waits until its port accepts."""
        home = self.directory / f"{name}.home"
        home.mkdir(exist_ok=True)
        environment = dict(os.environ, HOME=str(home), XDG_CONFIG_HOME=str(home), XDG_DATA_HOME=str(home))
        log = open(self.directory / f"{name}.log", "wb")
        process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.stack.callback(end, process)
        try:
            wait_for_port(port, process)
        except RuntimeError as error:
            tail = (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]
            raise SystemExit(f"{name}: {error}\n{tail}") from None
        return process


def end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_port(port, process):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it listened")
        with contextlib.suppress(OSError):
            socket.create_connection((LOOPBACK, port), 1).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port} after {START_SECONDS} s")


def process_table():
    """pid -> (parent, CPU ticks used)"""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path("/proc", entry, "stat").read_text()
                fields = stat[stat.rindex(")") + 2 :].split()
                table[int(entry)] = (int(fields[1]), int(fields[11]) + int(fields[12]))
    return table


def tree(process, table):
    """The pids of a process and its descendants, without the backend that we run."""
    pids, todo = set(), [process.pid]
    while todo:
        pid = todo.pop()
        pids.add(pid)
        todo += [child for child, (parent, _) in table.items() if parent == pid and not is_backend(child)]
    return pids


def is_backend(pid):
    with contextlib.suppress(OSError):
        command = pathlib.Path("/proc", str(pid), "cmdline").read_bytes()
        return b"backend.conf" in command or b"benching/app.py" in command
    return False


def cpu_seconds(process):
    if process is None:
        return float("nan")
    table = process_table()
    return sum(table[pid][1] for pid in tree(process, table) if pid in table) * TICK_SECONDS


def rss_kib(process):
    total = 0
    for pid in tree(process, process_table()):
        with contextlib.suppress(OSError):
            status = pathlib.Path("/proc", str(pid), "status").read_text()
            found = re.search(r"VmRSS:\s+(\d+) kB", status)
            total += int(found[1]) if found else 0
    return total
