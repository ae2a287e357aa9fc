#!/usr/bin/env python3
"""Programs over HTTP at full speed: a gigabyte of lines and one without a line end arrive byte for byte
in flat memory, a run starts as fast as a process does, a client that is cut off hundreds of times still
gets every byte once and the exit code, and hundreds of runs leave nothing behind. On a small scale nothing
is said of times.
"""

import hashlib
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import threading
import time

import frag

TOKEN = "e2e-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
GIB = 1 << 30
BYTES = GIB // 32 if frag.SMALL_SCALE else GIB
STARTS = 300
LEAVES = 50 if frag.SMALL_SCALE else 500
RUNS = 200 if frag.SMALL_SCALE else 1000
BUSY = 4 if frag.SMALL_SCALE else 16
# Of which a gigabyte of output takes nothing: two tails of 1 MiB, buffers, a few threads.
FLAT_KIB = 16 * 1024
# Measured at 5 to 7; the time it takes is the client's, and the machine's.
CPU_SECONDS_A_GIB = 20
STARTED_MS = 5
TICKS = os.sysconf("SC_CLK_TCK")


def start(server, command, **more):
    """(connection, response) of a run."""
    connection = server.connect()
    connection.request("POST", "/_frag/exec", json.dumps({"args": command, **more}), HEADERS)
    response = connection.getresponse()
    assert response.status == 200, (response.status, response.read())
    return connection, response


def events(response, piece=1 << 18):
    """Each event's (id, data), until the body ends."""
    rest = b""
    while True:
        read = response.read1(piece)
        if not read:
            assert rest == b"", rest
            return
        blocks = (rest + read).split(b"\n\n")
        rest = blocks.pop()
        for block in blocks:
            if not block.startswith(b":"):
                event_id, name, data = block.split(b"\n")
                assert name == b"event: cli", block
                yield event_id[4:].decode(), parse(data[6:])


STDOUT = b'{"type":"stdout","data":"'


def parse(data):
    """JSON, but a hundred times faster for long text whose only escape is the line end."""
    if len(data) > 1000 and data.startswith(STDOUT) and data.count(b"\\") == data.count(b"\\n"):
        text, _, offset = data[len(STDOUT):-1].rpartition(b'","offset":')
        return {"type": "stdout", "data": text.replace(b"\\n", b"\n").decode(), "offset": int(offset)}
    return json.loads(data)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def gigabyte(server, what, script, expected):
    """Streams it all to a client that keeps up as well as Python can."""
    seen, total, count, wire = hashlib.sha256(), 0, 0, {}
    before = cpu_seconds(server.pid())
    with frag.MemoryWatch(server) as memory:
        began = time.monotonic()
        connection, response = start(server, ["sh", "-c", script], timeout_secs=600)
        for _, event in events(response):
            wire[event["type"]] = wire.get(event["type"], 0) + 1
            if event["type"] == "stdout":
                data = event["data"].encode()
                assert event["offset"] == total, (event["offset"], total)
                seen.update(data)
                total += len(data)
                count += 1
            last = event
        seconds = time.monotonic() - began
        connection.close()
    cpu = cpu_seconds(server.pid()) - before
    assert last["type"] == "exit_code" and last["code"] == 0, last
    assert seen.hexdigest() == expected, f"{what}: {total} bytes, not the ones that were written"
    rate = BYTES / 1e6 / seconds
    print(f"{what}: {BYTES >> 20} MiB, {rate:.0f} MB/s, {count} events, {cpu:.2f} s of CPU, "
          f"{memory.highest_kib} KiB resident at most")
    assert memory.highest_kib < FLAT_KIB, memory.highest_kib
    assert frag.SMALL_SCALE or cpu < BYTES / GIB * CPU_SECONDS_A_GIB, cpu


def drained(server, script):
    """The same read by a client that looks at no byte of it."""
    body = json.dumps({"args": ["sh", "-c", script], "timeout_secs": 600})
    before, began = cpu_seconds(server.pid()), time.monotonic()
    fields = [word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}")]
    url = f"http://{frag.LOOPBACK}:{server.port}/_frag/exec"
    with frag.MemoryWatch(server) as memory:
        curl = subprocess.run(["curl", "-sN", "-o", "/dev/null", "-w", "%{size_download}", *fields, "-d", body, url],
                              check=True, capture_output=True, text=True)
    seconds, cpu = time.monotonic() - began, cpu_seconds(server.pid()) - before
    print(f"the same to curl: {BYTES / 1e6 / seconds:.0f} MB/s of output, {int(curl.stdout) / 1e9:.2f} GB on the wire, "
          f"{cpu:.2f} s of CPU, {memory.highest_kib} KiB resident at most")


def hash_of(piece, line_end=b""):
    whole, rest = divmod(BYTES, len(piece))
    hashed = hashlib.sha256()
    for _ in range(whole):
        hashed.update(piece)
    hashed.update(piece[:rest] + line_end)
    return hashed.hexdigest()


def unread(server):
    """A run that nobody reads is not held back, and takes no more memory."""
    command = ["sh", "-c", f"head -c {BYTES} /dev/zero"]
    with frag.MemoryWatch(server) as memory:
        connection, response = start(server, command, detach=True, timeout_secs=600)
        run_id = next(events(response, 4096))[1]["run_id"]
        connection.close()

        def over():
            runs = server.json("GET", "/_frag/exec", headers=HEADERS)[1]["runs"]
            return next((run for run in runs if run["run_id"] == run_id and run["state"] == "exited"), None)

        run = frag.wait_for(over, 120, "the unread run is over")
    assert run["stdout_bytes"] == BYTES and run["exit_code"] == 0, run
    print(f"unread, without line ends: {BYTES / 1e6 / (run['duration_ms'] / 1000):.0f} MB/s, "
          f"{memory.highest_kib} KiB resident at most")
    assert memory.highest_kib < FLAT_KIB, memory.highest_kib


def time_to_started(server):
    """From the request to the event, against a process started here, turn about."""
    over_http, alone = [], []
    program = shutil.which("true")
    for _ in range(STARTS):
        body = json.dumps({"args": [program]})
        connection = server.connect()
        connection.connect()
        began = time.perf_counter()
        connection.request("POST", "/_frag/exec", body, HEADERS)
        response = connection.getresponse()
        first = response.read1(4096)
        over_http.append(time.perf_counter() - began)
        assert b'"type":"started"' in first, first
        response.read()
        connection.close()
        began = time.perf_counter()
        child = subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        alone.append(time.perf_counter() - began)
        child.communicate()
    p50, p50_alone = (statistics.median(times) * 1000 for times in (over_http, alone))
    print(f"from request to started: p50 {p50:.2f} ms; fork and exec alone {p50_alone:.2f} ms, {STARTS} times each")
    assert p50 - p50_alone <= STARTED_MS, (p50, p50_alone)


def leave_and_return(server):
    """Cut off in the middle of whatever comes, again and again."""
    chance = random.Random(7)
    lines = LEAVES * 8
    script = (f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo out $i; echo err $i >&2; "
              "[ $((i % 8)) = 0 ] && sleep 0.005; done; exit 7")
    connection, response = start(server, ["sh", "-c", script], detach=True, timeout_secs=300)
    first = next(events(response, 4096))
    run_id, last_id = first[1]["run_id"], first[0]
    texts, ends, leaves = {"stdout": [], "stderr": []}, [], 0
    while not ends:
        budget = chance.randrange(1, 1500)
        rest = b""
        while budget > 0 and not ends:
            read = response.read1(min(budget, 200))
            if not read:
                break
            budget -= len(read)
            blocks = (rest + read).split(b"\n\n")
            rest = blocks.pop()
            for block in filter(None, blocks):
                event_id, name, data = block.split(b"\n")
                event = json.loads(data[6:])
                assert name == b"event: cli", block
                last_id = event_id[4:].decode()
                if event["type"] in texts:
                    texts[event["type"]].append(event["data"])
                elif event["type"] == "exit_code":
                    ends.append(event["code"])
        connection.close()
        if not ends:
            leaves += 1
            connection = server.connect()
            connection.request("GET", f"/_frag/exec/{run_id}", headers={**HEADERS, "Last-Event-ID": last_id})
            response = connection.getresponse()
            assert response.status == 200, response.status
    for stream, word in (("stdout", "out"), ("stderr", "err")):
        expected = "".join(f"{word} {n}\n" for n in range(1, lines + 1))
        assert "".join(texts[stream]) == expected, f"{stream} is not what was written"
    assert ends == [7], ends
    print(f"cut off and back {leaves} times: {2 * lines} lines each once, and the exit code")
    assert leaves >= LEAVES, leaves


def nothing_grows(server):
    """Runs that end in every way leave no thread and no descriptor."""
    look = lambda: (server.descriptors(), server.threads("exec"))
    before, chance = frag.settled(look), random.Random(8)

    def some():
        for number in range(RUNS // 8):
            way = chance.randrange(5)
            command = ["no-such-program"] if way == 0 else ["sh", "-c", f"echo {number}; exit {number % 256}"]
            if way == 1:
                command = ["sh", "-c", "sleep 1000 & exec sleep 1000"]
            connection, response = start(server, command, stream=way != 2, stdin="x" * 100_000 if way == 3 else None)
            if way == 1:
                next(events(response, 4096))
            elif way == 2:
                assert json.loads(response.read())["exit_code"] == number % 256
            else:
                *_, (_, last) = events(response)
                assert last["type"] == "exit_code" and last["code"] == (1 if way == 0 else number % 256), last
            connection.close()
            response.close()

    threads = [frag.Checked(some) for _ in range(8)]
    for thread in threads:
        thread.join()
    after = frag.settled(look, 3)
    assert after == before, f"descriptors and threads: {before}, then {after}"
    print(f"{RUNS} runs of every kind: {before[0]} descriptors before and after, no thread more")


def nothing_left(server):
    """Busy runs, then SIGTERM: every stream gets its exit code, nobody survives."""
    marker = f"frag-e2e-{os.getpid()}"
    script = "(while :; do echo noise; done) & setsid sleep 1000 & exec sleep 1000"
    codes, threads = [], []
    for _ in range(BUSY):
        connection, response = start(server, ["sh", "-c", script], env={"MARKER": marker})

        def follow(response=response, connection=connection):
            *_, last = events(response)
            codes.append(last[1])
            connection.close()

        threads.append(threading.Thread(target=follow))
        threads[-1].start()
    frag.wait_for(lambda: len(marked(marker)) >= 3 * BUSY, 30, "all of them run")
    server.signal(15)
    code = server.wait()
    for thread in threads:
        thread.join()
    assert code == 0, code
    assert len(codes) == BUSY and all(event["type"] == "exit_code" for event in codes), codes
    assert not marked(marker), marked(marker)
    print(f"{BUSY} busy runs at SIGTERM: {len(codes)} exit codes, no process left")


def marked(marker):
    """Processes with this in their environment."""
    found = []
    for pid in frag.processes():
        try:
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if f"MARKER={marker}".encode() in environ.read() and frag.runs(pid):
                    found.append(pid)
        except OSError:
            pass
    return found


def main():
    flags = ["--exec", "any", "--exec-max-output", "2GiB", "--exec-max-concurrent", "64"]
    with frag.Server("sleep 1000000", *flags, environment={"FRAG_TOKEN": TOKEN}) as server:
        if not frag.SMALL_SCALE:
            time_to_started(server)
        leave_and_return(server)
        unread(server)
        lines = f"yes | head -c {BYTES}"
        gigabyte(server, "yes | head", lines, hash_of(b"y\n" * (1 << 16)))
        if not frag.SMALL_SCALE:
            drained(server, lines)
        gigabyte(server, "one line of it", f"head -c {BYTES} /dev/zero | tr '\\0' x", hash_of(b"x" * (1 << 17), b"\n"))
        nothing_grows(server)
        nothing_left(server)


if __name__ == "__main__":
    try:
        main()
    except http.client.IncompleteRead as error:
        raise SystemExit(f"a stream was cut: {error}") from None
