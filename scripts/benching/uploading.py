"""Uploads to the disk, beside dd."""

import os
import random
import re
import socket
import statistics
import subprocess
import time

from .configurations import LOOPBACK
from .processes import say


def put(port, source):
    """PUTs a file with sendfile(2), so that the client is not what is measured; returns seconds."""
    began = time.monotonic()
    with socket.create_connection((LOOPBACK, port), 60) as connection, open(source, "rb") as file:
        head = (
            f"PUT /_frag/upload/upload.bin HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\n"
            f"Content-Length: {os.path.getsize(source)}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode())
        connection.sendfile(file)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    if not re.match(rb"HTTP/1\.1 20[01] ", answer):
        raise SystemExit(f"upload: {answer[:500]!r}")
    return time.monotonic() - began


def dd(source, destination):
    began = time.monotonic()
    subprocess.run(
        ["dd", f"if={source}", f"of={destination}", "bs=1M", "conv=fsync"], check=True, capture_output=True
    )
    return time.monotonic() - began


def print_uploads(stage, port, root, mebibytes, times):
    source = stage.directory / "source.bin"
    with open(source, "wb") as file:
        for _ in range(mebibytes):
            file.write(random.randbytes(1 << 20))
    uploads, copies = [], []
    for number in range(times):
        copies.append(dd(source, root / "copy.bin"))
        (root / "copy.bin").unlink()
        uploads.append(put(port, source))
        if (root / "upload.bin").stat().st_size != source.stat().st_size:
            raise SystemExit("upload: the file on disk has another length")
        (root / "upload.bin").unlink()
        say(f"upload {number + 1}: ours {uploads[-1]:.3f} s, dd {copies[-1]:.3f} s")
    ours, reference = statistics.median(uploads), statistics.median(copies)
    kind = subprocess.run(["stat", "-f", "-c", "%T", root], capture_output=True, text=True).stdout.strip()
    print(f"| {mebibytes} MiB to {kind}, median of {times} | seconds | MiB/s | × dd |")
    print("|---|--:|--:|--:|")
    print(f"| PUT /_frag/upload | {ours:.3f} | {mebibytes / ours:.0f} | {reference / ours:.2f} |")
    print(f"| dd conv=fsync | {reference:.3f} | {mebibytes / reference:.0f} | 1.00 |")
