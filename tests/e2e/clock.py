#!/usr/bin/env python3
"""The wall clock jumps a day forth and back, five times a second: no timeout fires early or late, no
connection ends, nothing is lost.

Needs Debian's libfaketime and a binary it can be loaded into: FRAG_BIN if that is not static, else
the debug build.
"""

import glob
import os
import pathlib
import subprocess
import threading
import time

import frag

LIBRARIES = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
DAY = 86400
# A machine with other work to do is late; a clock that counts is off by a day.
LATE_SECONDS = 3
ROUNDS = 5 if frag.SMALL_SCALE else 25


class JumpingClock:
    """The offset that libfaketime reads anew at each call."""

    def __init__(self, path):
        self.path, self.over = path, threading.Event()
        self.jumps = 0
        self.set(0)

    def set(self, days):
        part = self.path.with_suffix(".part")
        part.write_text(f"{days * DAY:+d}\n")
        part.rename(self.path)

    def run(self):
        while not self.over.wait(0.2):
            self.jumps += 1
            self.set([-1, 1, 0, 30, -30][self.jumps % 5])


def timed(what, least, call):
    began = time.monotonic()
    result = call()
    took = time.monotonic() - began
    assert least <= took < least + LATE_SECONDS, f"{what} took {took:.2f} s instead of {least}"
    return result


def check(server, clock):
    idle = server.connect()
    idle.request("GET", "/")
    assert idle.getresponse().read()
    stamps = set()
    for number in range(ROUNDS):
        assert server.request("GET", "/")[0] == 200
        assert server.request("PUT", "/_frag/upload/note", body=b"%d" % number)[0] == 200
        assert server.request("GET", "/_frag/files/note") == (200, b"%d" % number)
        stamps.add(server.json("GET", "/_frag/health")[1]["timestamp"] // (1000 * DAY))
        time.sleep(0.1)
    assert len(stamps) > 1, f"its clock did jump: {stamps}"
    assert server.request("POST", "/_frag/restart?wait=ready")[0] == 200
    uptime = server.json("GET", "/_frag/status")[1]["uptime_ms"]
    assert uptime < 60_000, f"up for {uptime} ms"
    # Kept for 75 s, whatever the clock says.
    idle.request("GET", "/")
    assert idle.getresponse().status == 200
    assert server.request("POST", "/_frag/stop")[0] == 200
    assert timed("await", 2, lambda: server.request("GET", "/_frag/await?timeout=2"))[0] == 503
    assert server.request("POST", "/_frag/start")[0] == 200


def hold(clock_file, binary, environment):
    with frag.Server("sleep 100000", "--hold-timeout", "2s", environment=environment) as server:
        assert timed("a held request", 2, lambda: server.request("GET", "/"))[0] == 503


if not LIBRARIES:
    frag.skip("libfaketime is not installed")
binary = frag.dynamic_binary()
os.environ["FRAG_BIN"] = binary
# The app has its own clock.
with frag.Server("env -u LD_PRELOAD " + frag.app("web")) as server:
    file = pathlib.Path(server.temporary.name, "clock")
    clock = JumpingClock(file)
    server.stop()
    environment = {
        "LD_PRELOAD": LIBRARIES[0],
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        # The clock that only counts is not set by anybody.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    tried = subprocess.run(["date", "+%s"], env=os.environ | environment, stdout=subprocess.PIPE, check=True)
    assert tried.stdout.strip().isdigit()
    server.environment = os.environ | environment
    server.start()
    jumping = threading.Thread(target=clock.run)
    jumping.start()
    try:
        server.wait_ready()
        check(server, clock)
        hold(file, binary, environment)
    finally:
        clock.over.set()
        jumping.join()
    print(f"{clock.jumps} jumps of a day or a month: served throughout, waits as long as they should be")
