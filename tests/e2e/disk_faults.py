#!/usr/bin/env python3
"""Uploads to a disk that is full, or read-only for a while: told with an error of its own, nothing half
written is seen or left, what was there stays, and once there is room it works again.

The disk is a tmpfs of 4 MiB in a mount namespace of the server's own.
"""

import hashlib
import pathlib
import subprocess
import threading

import frag

DISK_BYTES = 4 << 20
KEPT = b"k" * (1 << 20)
UPLOADS = 20
LARGE = b"x" * (3 << 20)


def mounted():
    """The words that run a command in its own namespace, its directory a small disk."""
    script = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$PWD" && cd "$PWD" && exec "$@"'
    return [*frag.unshare("--mount"), "sh", "-c", script, "sh"]


def root_of(server):
    return pathlib.Path("/proc", str(server.pid()), "root", *server.root.parts[1:])


def remount(server, how):
    words = ["nsenter", "-t", str(server.pid()), "-m", "mount", "-o", f"remount,{how}", str(server.root)]
    subprocess.run(words, check=True)


def upload(server, name, body, answers=None):
    answer = server.json("PUT", f"/_frag/upload/{name}", body=body)
    if answers is not None:
        answers[name] = answer
    return answer


def seen(server):
    """Everything on the disk, hidden or not."""
    return sorted(path.name for path in root_of(server).iterdir())


def full(server):
    assert upload(server, "kept", KEPT)[0] == 200
    answers = {}
    threads = [
        threading.Thread(target=upload, args=(server, f"large{n}", LARGE, answers)) for n in range(UPLOADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = {(status, body["error"]["code"]) for status, body in answers.values() if status != 200}
    stored = [name for name, (status, _) in answers.items() if status == 200]
    assert refused == {(507, "no_space")}, refused
    assert len(stored) <= 1 and len(answers) == UPLOADS, answers
    # What was refused may still be read to its end; its temporary file goes then.
    frag.wait_for(lambda: seen(server) == sorted(["kept", *stored]), 10, f"nothing half written is left: {seen(server)}")
    for name, data in {"kept": KEPT, **{name: LARGE for name in stored}}.items():
        assert server.request("GET", f"/_frag/files/{name}") == (200, data), name
    # A file that cannot be replaced stays as it was.
    for name in stored:
        assert server.request("DELETE", f"/_frag/files/{name}")[0] in (200, 204)
    assert upload(server, "kept", LARGE + LARGE)[0] == 507
    assert server.request("GET", "/_frag/files/kept") == (200, KEPT)
    assert server.request("DELETE", "/_frag/files/kept")[0] in (200, 204)
    status, body = upload(server, "kept", LARGE)
    assert (status, body["sha256"]) == (200, hashlib.sha256(LARGE).hexdigest())
    print(f"a full disk: {UPLOADS - len(stored)} of {UPLOADS} uploads refused with {refused}, nothing left, then room again")


def read_only(server):
    before = seen(server)
    remount(server, "ro")
    status, body = upload(server, "new", b"x")
    code = body["error"]["code"]
    assert (status, code) == (409, "read_only_file_system"), (status, body)
    assert server.request("DELETE", f"/_frag/files/{before[0]}")[0] >= 400
    assert server.request("GET", f"/_frag/files/{before[0]}")[0] == 200
    assert server.json("GET", "/_frag/status")[0] == 200
    remount(server, "rw")
    assert seen(server) == before
    assert upload(server, "new", b"x")[0] == 200
    print(f"a read-only disk: {status} {code}, what is there can be read; writable again, it works again")


with frag.Server("sleep 100000", wrapper=mounted()) as server:
    full(server)
    read_only(server)
    assert server.json("GET", "/_frag/status")[1]["restarts"] == 0
