#!/usr/bin/env python3
"""Bodies far larger than memory: through the relay in both directions and into a file.

Each arrives unchanged, and our resident memory stays below 20 MiB throughout. SIZE_MIB sets how
large; by hand a GiB each.
"""

import hashlib
import os
import time

import frag
import sink

SIZE_MIB = int(os.environ.get("SIZE_MIB", 64 if frag.SMALL_SCALE else 1024))
SIZE = SIZE_MIB << 20
MEMORY_LIMIT_KIB = 20 << 10
READ_BYTES = 1 << 18


def post_chunked(server):
    connection = server.connect()
    connection.request("POST", "/hash", body=sink.blocks(SIZE), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    return connection.getresponse()


def post_with_length(server):
    connection = server.connect()
    connection.request("POST", "/hash", body=sink.blocks(SIZE), headers={"Content-Length": str(SIZE)})
    return connection.getresponse()


def check_post(send):
    def check(server):
        response = send(server)
        body = response.read()
        assert response.status == 200, (response.status, body)
        answer = frag.json.loads(body)
        assert (answer["bytes"], answer["sha256"]) == (SIZE, EXPECTED), answer

    return check


def check_download(path):
    def check(server):
        connection = server.connect()
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, response.status
        digest, total = hashlib.sha256(), 0
        while data := response.read(READ_BYTES):
            digest.update(data)
            total += len(data)
        assert (total, digest.hexdigest()) == (SIZE, EXPECTED), total

    return check


def check_upload(server):
    connection = server.connect()
    connection.request("PUT", "/_frag/upload/deep/large.bin", body=sink.blocks(SIZE),
                       headers={"Content-Length": str(SIZE)})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, (response.status, body)
    answer = frag.json.loads(body)
    assert (answer["bytes"], answer["sha256"]) == (SIZE, EXPECTED), answer
    with open(server.root / "deep/large.bin", "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == EXPECTED


EXPECTED = sink.sha256(SIZE)
CHECKS = {
    "POST, chunked": check_post(post_chunked),
    "POST, with a length": check_post(post_with_length),
    "GET, with a length": check_download(f"/bytes/{SIZE}"),
    "GET, chunked": check_download(f"/chunked/{SIZE}"),
    "upload": check_upload,
    "download of the upload": check_download("/_frag/files/deep/large.bin"),
}

with frag.Server(frag.sink()) as server:
    server.wait_ready()
    with frag.MemoryWatch(server) as watch:
        for name, check in CHECKS.items():
            began = time.monotonic()
            check(server)
            print(f"{name}: {SIZE_MIB} MiB in {time.monotonic() - began:.1f} s, RSS {server.memory_kib()} KiB")
    print(f"highest RSS: {watch.highest_kib} KiB ({watch.samples} samples and VmHWM)")
    assert watch.samples > 0
    assert watch.highest_kib < MEMORY_LIMIT_KIB, f"over {MEMORY_LIMIT_KIB} KiB"
