"""Starts the server under test on free ports, in a directory of its own, and ends it again.

    with frag.Server("python3 app.py") as server:
        server.request("GET", "/_frag/status")

For shell scripts: `python3 frag.py ports 2` prints that many free ports.
"""

import contextlib
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
SMALL_SCALE = os.environ.get("CI") == "true"
START_SECONDS = 15
STOP_SECONDS = 30


def free_ports(count):
    """Ports nobody listens on now, all different. The kernel gives them to no connection either, which
    could keep an app that is started again from having its own back."""
    lowest_given = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Where the kernel gives low ones as well, they are free now and no more is known.
    candidates = range(10_000, max(lowest_given, 20_000))
    candidates = random.sample(candidates, len(candidates))
    return list(itertools.islice(filter(is_free, candidates), count))


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def wait_for(condition, seconds, what):
    """Asks until it is so; what it returned last. Fails loudly when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def settled(look, seconds=1):
    """What `look` tells once it has told the same for so long."""
    seen, since = look(), time.monotonic()
    while time.monotonic() < since + seconds:
        time.sleep(0.05)
        now = look()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


def listens(port):
    try:
        socket.create_connection((LOOPBACK, port), 1).close()
    except OSError:
        return False
    return True


def app(*arguments):
    """The command of one of the apps in apps.py."""
    return " ".join([sys.executable, str(HERE / "apps.py"), *map(str, arguments)])


def skip(why):
    """Ends the script: it cannot run here."""
    print(why)
    raise SystemExit(77)


def dynamic_binary():
    """FRAG_BIN if a library can be loaded into it, else the debug build; skips the script without either."""
    debug = pathlib.Path(HERE.parent.parent, "target/debug/simple-artifact-server")
    for binary in (pathlib.Path(os.environ["FRAG_BIN"]), debug):
        if binary.exists() and b"ld-linux" in binary.read_bytes()[:4096]:
            return str(binary)
    return skip("no binary that is not static")


def unshare(*kinds):
    """The words that run a command in new namespaces of these kinds; skips the script without them."""
    words = ["unshare", *kinds, "--fork"]
    for more in ([], ["--user", "--map-root-user"]):
        tried = subprocess.run([*words, *more, "true"], stderr=subprocess.PIPE, text=True, check=False)
        if tried.returncode == 0:
            return words + more
    return skip(f"unshare is not allowed: {tried.stderr.strip()}")


def processes():
    """{pid: (parent, state)} of every process that can be seen."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name may hold anything; the last parenthesis ends it.
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            found[int(stat.parent.name)] = (int(parent), state)
    return found


def runs(pid):
    """Whether a process is there and not a zombie."""
    return processes().get(pid, (0, "Z"))[1] not in "ZX"


def sink(path=HERE / "sink.py"):
    """The command of the app that hashes what it gets and sends as much as it is asked for."""
    return f"{sys.executable} {path}"


class Server:
    def __init__(self, command, *flags, environment=None, wrapper=(), before=None):
        self.temporary = tempfile.TemporaryDirectory(prefix="frag-e2e-")
        self.root = pathlib.Path(self.temporary.name, "root")
        self.root.mkdir()
        # Another user may be who runs it.
        os.chmod(self.temporary.name, 0o711)
        self.port, self.app_port = free_ports(2)
        self.argv = [*wrapper, os.environ["FRAG_BIN"], "--command", command, "--host", LOOPBACK]
        self.argv += ["--port", str(self.port), "--subprocess-port", str(self.app_port), *flags]
        self.environment = dict(os.environ, **(environment or {}))
        self.wrapped_in, self.before = len(wrapper) > 0, before
        self.log = pathlib.Path(self.temporary.name, "log")
        self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if kind is not None:
            print(f"-- log of the server:\n{self.log.read_text(errors='replace')[-4000:]}")
        self.temporary.cleanup()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self.before,
            )
        wait_for(lambda: self.process.poll() is not None or listens(self.port), START_SECONDS, "it listens")
        if self.process.poll() is not None:
            raise SystemExit(f"the server ended with {self.process.returncode} at start")

    def pid(self):
        """The server's own, also when a wrapper started it."""
        if not self.wrapped_in:
            return self.process.pid
        inner = [pid for pid, (parent, _) in processes().items() if parent == self.process.pid]
        return inner[0] if inner else None

    def signal(self, number):
        os.kill(self.pid(), number)

    def stop(self):
        """SIGTERM, and the exit code; None if it was not running."""
        if self.process is None or self.process.poll() is not None:
            return None
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SystemExit(f"it did not stop within {STOP_SECONDS} s of SIGTERM") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def wait_ready(self):
        status, body = self.request("GET", "/_frag/await?timeout=15")
        if status != 200:
            raise SystemExit(f"await: {status} {body!r}")

    def connect(self, timeout=60):
        return http.client.HTTPConnection(LOOPBACK, self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """One request on a connection of its own: (status, body)."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, method, path, **more):
        status, body = self.request(method, path, **more)
        return status, json.loads(body)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid()}/fd"))

    def threads(self, name):
        """How many threads have this name."""
        count = 0
        for comm in pathlib.Path("/proc", str(self.pid()), "task").glob("*/comm"):
            with contextlib.suppress(OSError):
                count += comm.read_text().strip() == name
        return count

    def memory_kib(self, name="VmRSS"):
        """VmHWM is the highest VmRSS since the start or since it was reset."""
        return self.status_number(name)

    def status_number(self, name):
        """A line of /proc/PID/status."""
        text = pathlib.Path("/proc", str(self.pid()), "status").read_text()
        return int(re.search(rf"{name}:\s+(\d+)", text)[1])


class Checked(threading.Thread):
    """A thread that is running already; joining it tells how it failed, if it did."""

    def __init__(self, body, *arguments):
        super().__init__(daemon=True)
        self.body, self.arguments, self.error = body, arguments, None
        self.start()

    def run(self):
        try:
            self.body(*self.arguments)
        except BaseException as error:
            self.error = error

    def join(self, timeout=None):
        super().join(timeout)
        if self.error is not None:
            raise self.error


class MemoryWatch:
    """Samples the server until it is left; `highest_kib` is then its highest RSS, `highest_threads` the most
    threads seen."""

    def __init__(self, server, every_seconds=0.02):
        self.server, self.every_seconds = server, every_seconds
        self.highest_kib = self.highest_threads = self.samples = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(self.every_seconds):
            self.highest_kib = max(self.highest_kib, self.server.memory_kib())
            self.highest_threads = max(self.highest_threads, self.server.status_number("Threads"))
            self.samples += 1

    def __enter__(self):
        # The kernel's own maximum begins anew.
        pathlib.Path("/proc", str(self.server.pid()), "clear_refs").write_text("5")
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        # The kernel's own maximum misses nothing between two samples.
        self.highest_kib = max(self.highest_kib, self.server.memory_kib("VmHWM"))


if __name__ == "__main__" and sys.argv[1:2] == ["ports"]:
    print(*free_ports(int(sys.argv[2])))
