#!/usr/bin/env python3
"""kill -9 of the server in the middle of 200 uploads, again and again.

Afterwards every file that can be seen is whole, old version or new, and every upload that was
answered 200 is there.
"""

import http.client
import random
import threading
import time

import frag

ROUNDS = 3 if frag.SMALL_SCALE else 10
UPLOADS = 200
THREADS = 20
# Fewer names than uploads, so that most of them replace a file.
NAMES = 60
LARGEST_BYTES = 1 << 20
STAMP_BYTES = 8


def content(version):
    """What version N of any file looks like; its first bytes tell which it is."""
    numbers = random.Random(version)
    return version.to_bytes(STAMP_BYTES, "big") + numbers.randbytes(numbers.randrange(LARGEST_BYTES))


def upload(server, name, version):
    """True once it was acknowledged, False if the server went away before."""
    connection = http.client.HTTPConnection(frag.LOOPBACK, server.port, timeout=30)
    try:
        connection.request("PUT", f"/_frag/upload/{name}", body=content(version))
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    assert response.status == 200, (response.status, body)
    return True


def run(server, first_version):
    """Uploads from many threads until the server is killed; returns {name: acknowledged versions}."""
    queue = list(range(first_version, first_version + UPLOADS))
    acknowledged = {}
    faults = []
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if not queue:
                    return
                version = queue.pop(0)
            name = f"folder{version % 3}/file{version % NAMES}"
            try:
                if not upload(server, name, version):
                    return
            except AssertionError as fault:
                faults.append(fault)
                return
            with lock:
                acknowledged.setdefault(name, []).append(version)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    # Somewhere in the middle: after a number of acknowledgements that differs from round to round.
    enough = random.randrange(1, UPLOADS // 2)
    frag.wait_for(lambda: faults or sum(map(len, acknowledged.values())) >= enough, 60, "uploads succeed")
    time.sleep(random.random() * 0.01)
    server.kill()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return acknowledged


def check(server, acknowledged):
    """Every visible file is a whole version; returns how many hidden files were left."""
    hidden = 0
    for path in server.root.rglob("*"):
        if path.is_dir():
            continue
        name = str(path.relative_to(server.root))
        if path.name.startswith("."):
            hidden += 1
            continue
        data = path.read_bytes()
        version = int.from_bytes(data[:STAMP_BYTES], "big")
        assert data == content(version), f"{name}: {len(data)} bytes, not whole"
    for name, versions in acknowledged.items():
        data = (server.root / name).read_bytes()
        version = int.from_bytes(data[:STAMP_BYTES], "big")
        # Another upload to the same name may have won, even one whose answer was cut off; but only one
        # of this round: an older file would mean that an acknowledged one was lost.
        assert version // UPLOADS == versions[0] // UPLOADS, f"{name}: {version} after {versions}"
    return hidden


with frag.Server("sleep 100000") as server:
    for number in range(ROUNDS):
        # Versions of one round share version // UPLOADS.
        acknowledged = run(server, (number + 1) * UPLOADS)
        hidden = check(server, acknowledged)
        done = sum(map(len, acknowledged.values()))
        print(f"round {number + 1}: killed after {done} of {UPLOADS}; all visible files whole, {hidden} hidden ones")
        frag.wait_for(lambda: not frag.listens(server.port), 10, "the port is free")
        server.start()
        # The next life sweeps what was left.
        frag.wait_for(lambda: not list(server.root.rglob(".frag-upload-*")), 10, "no hidden file is left")
    # It is as good as new after that.
    assert upload(server, "last", 7)
    assert (server.root / "last").read_bytes() == content(7)
