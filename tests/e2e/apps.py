"""Apps to wrap that behave well or badly: `apps.py KIND [ARGUMENT…]`, listening on loopback at PORT.

Paths every one that answers knows: /sleep/MS waits before it answers, /crash ends it like kill -9,
/close closes the listener for a second, /escape leaves the listener to a process in a session of its own.
Bodies are the pid of who answers.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

BACKLOG = 1024


def listen():
    return socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=BACKLOG)


def publish(name, text):
    """A file that is there whole or not at all."""
    part = pathlib.Path(name + ".part")
    part.write_text(text)
    part.rename(name)


def sleep_for_ever():
    while True:
        time.sleep(1000)


class Web:
    """Keeps connections, a thread each."""

    def __init__(self):
        self.listener = listen()
        self.body = str(os.getpid()).encode()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # closed by /close, which opens another
                time.sleep(0.01)
                continue
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self.body), self.body)
        received = b""
        try:
            while True:
                while b"\r\n\r\n" not in received:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    received += piece
                head, _, received = received.partition(b"\r\n\r\n")
                self.act(head.split(b" ", 2)[1].decode())
                connection.sendall(answer)
        except OSError:
            pass
        finally:
            connection.close()

    def act(self, path):
        if path.startswith("/sleep/"):
            time.sleep(int(path.removeprefix("/sleep/")) / 1000)
        elif path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif path == "/close":
            threading.Thread(target=self.close_for_a_second, daemon=True).start()
        elif path == "/escape":
            # A child of its own session that serves on the same listener.
            escaped = os.fork()
            if escaped == 0:
                os.setsid()
                self.body = str(os.getpid()).encode()
                publish("escaped", str(os.getpid()))
                self.run()

    def close_for_a_second(self):
        # A thread blocked in accept(2) would keep the socket; shutdown(2) wakes it.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        time.sleep(1)
        self.listener = listen()


def web(delay="0"):
    """Listens after a delay, in seconds."""
    time.sleep(float(delay))
    Web().run()


def never():
    """Runs and does not listen."""
    sleep_for_ever()


def mute():
    """Accepts and says nothing."""
    listener, kept = listen(), []
    while True:
        kept.append(listener.accept())


def flood():
    """Answers, and writes to stdout without a newline as fast as it goes."""
    threading.Thread(target=Web().run, daemon=True).start()
    chunk = b"x" * 65536
    while True:
        os.write(1, chunk)


def daemon(delay="0"):
    """Forks away: the process that was started ends at once, another one listens after a delay."""
    if os.fork() == 0:
        os.setsid()
        publish("daemon", str(os.getpid()))
        web(delay)


def leftover(delay):
    """The first life forks away; the next ones stay, and do not listen."""
    if pathlib.Path("daemon").exists():
        sleep_for_ever()
    daemon(delay)
    while not pathlib.Path("daemon").exists():
        time.sleep(0.01)


def orphans(count):
    """Makes orphans, half of them in sessions of their own, that end by themselves; then listens."""
    for number in range(int(count)):
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                if number % 2:
                    os.setsid()
                time.sleep(number % 50 / 100)
            os._exit(number % 256)
        os.waitpid(middle, 0)
    web()


def record():
    """Writes down each signal it gets, one file each."""
    taken = ["HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT"]
    for name in taken:
        number = getattr(signal, "SIG" + name)
        signal.signal(number, lambda got, _: publish("got" + signal.Signals(got).name, "x"))
    web()


def tree():
    """Deaf to SIGTERM, as are its children, some of them in sessions of their own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids = [os.getpid()]
    for number in range(6):
        sleeper = subprocess.Popen(["sleep", "100000"], start_new_session=number % 2 == 1)
        pids.append(sleeper.pid)
    # One more whose parent is gone already.
    nested = "trap '' TERM; setsid sleep 100000 >/dev/null & echo $!"
    pids.append(int(subprocess.run(["sh", "-c", nested], stdout=subprocess.PIPE, check=True).stdout))
    publish("pids", " ".join(map(str, pids)))
    sleep_for_ever()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
