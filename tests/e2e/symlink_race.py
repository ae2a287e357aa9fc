#!/usr/bin/env python3
"""A folder that turns into a link out of the root and back, thousands of times a second.

Uploads, downloads and deletes go through it meanwhile: none ever reaches what the link points to.
"""

import ctypes
import os
import pathlib
import threading
import time

import frag

SECONDS = 3 if frag.SMALL_SCALE else 10
AT_FDCWD, RENAME_EXCHANGE = -100, 2
SECRET = b"outside\n"
renameat2 = ctypes.CDLL(None, use_errno=True).renameat2


def exchange(one, other):
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def until(deadline, action, counts, name):
    while time.monotonic() < deadline:
        result = action()
        counts[name, result] = counts.get((name, result), 0) + 1


def upload(server):
    return server.request("PUT", "/_frag/upload/swap/upload", body=b"inside\n")[0]


def download(server):
    status, body = server.request("GET", "/_frag/files/swap/secret")
    assert SECRET not in body, "a download left the root"
    return status


def delete(server):
    return server.request("DELETE", "/_frag/files/swap/secret")[0]


with frag.Server("sleep 100000") as server:
    outside = pathlib.Path(server.temporary.name, "outside")
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    folder, link = server.root / "swap", server.root / "link"
    folder.mkdir()
    (folder / "secret").write_bytes(b"inside\n")
    link.symlink_to(outside)

    deadline = time.monotonic() + SECONDS
    counts, faults, swaps = {}, [], 0

    def guarded(action, name):
        try:
            until(deadline, lambda: action(server), counts, name)
        except Exception as fault:
            faults.append(fault)

    actions = [upload, upload, download, delete]
    threads = [
        threading.Thread(target=guarded, args=(action, f"{action.__name__} {number}"))
        for number, action in enumerate(actions)
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < deadline:
        exchange(folder, link)
        swaps += 1
        time.sleep(0)
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]

    assert sorted(os.listdir(outside)) == ["secret"], os.listdir(outside)
    assert (outside / "secret").read_bytes() == SECRET
    statuses = {}
    for (name, status), count in counts.items():
        key = (name.split()[0], status)
        statuses[key] = statuses.get(key, 0) + count
    print(f"{swaps} swaps;", ", ".join(f"{name} {status}: {n}" for (name, status), n in sorted(statuses.items())))
    # Both sides of the race were seen, or nothing was tested.
    assert statuses.get(("upload", 200)), "no upload ever succeeded"
    assert any(status >= 400 for name, status in statuses if name == "upload"), "no upload ever met the link"
    assert all(status < 500 for _, status in statuses), "a lost race is the client's error, not ours"
