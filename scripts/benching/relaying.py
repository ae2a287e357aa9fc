"""Small and large files through each server, under wrk."""

import collections
import http.client
import os
import re
import statistics
import subprocess
import time

from .configurations import LOOPBACK
from .processes import cpu_seconds, say

SMALL, LARGE = "small.txt", "large.bin"
SMALL_BODY = b"hello world\n"
LARGE_BYTES = 1 << 20
WARM_UP_SECONDS = 1

# `process` is None for the backend itself, whose costs are not compared.
Target = collections.namedtuple("Target", "name port process")
Case = collections.namedtuple("Case", "label path connections")
Run = collections.namedtuple("Run", "rate p50_us p99_us errors cpu_us")


def microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


def wrk(target, case, seconds):
    before = cpu_seconds(target.process)
    threads = min(2, case.connections, os.cpu_count() or 1)
    url = f"http://{LOOPBACK}:{target.port}/{case.path}"
    output = subprocess.run(
        ["wrk", "--latency", f"-t{threads}", f"-c{case.connections}", f"-d{seconds}s", url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    used = cpu_seconds(target.process) - before
    return parse_wrk(output, used)


def parse_wrk(output, cpu):
    def number(pattern):
        found = re.search(pattern, output)
        return sum(int(group) for group in found.groups()) if found else 0

    requests = number(r"(\d+) requests in")
    errors = number(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
    errors += number(r"Non-2xx or 3xx responses: (\d+)")
    if not requests:
        return Run(0.0, float("nan"), float("nan"), max(errors, 1), float("nan"))
    return Run(
        float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),
        microseconds(re.search(r"\s50%\s+(\S+)", output)[1]),
        microseconds(re.search(r"\s99%\s+(\S+)", output)[1]),
        errors,
        cpu / requests * 1e6,
    )


def check_bodies(target):
    """A benchmark of wrong answers is worth nothing."""
    for path, length in ((SMALL, len(SMALL_BODY)), (LARGE, LARGE_BYTES)):
        until = time.monotonic() + 10
        while True:
            connection = http.client.HTTPConnection(LOOPBACK, target.port, timeout=10)
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            body = response.read()
            connection.close()
            # It may listen before what it relays to is ready.
            if response.status != 503 or time.monotonic() > until:
                break
            time.sleep(0.1)
        if response.status != 200 or len(body) != length:
            raise SystemExit(f"{target.name}: {response.status} with {len(body)} bytes for /{path}")


def measure(targets, cases, rounds, seconds):
    runs = collections.defaultdict(list)
    for number in range(rounds):
        for case in cases:
            # A different one begins each round.
            shift = number % len(targets)
            for target in targets[shift:] + targets[:shift]:
                if number == 0:
                    wrk(target, case, WARM_UP_SECONDS)
                run = wrk(target, case, seconds)
                runs[target.name, case.label].append(run)
                say(f"round {number + 1} {case.label:>16} {target.name:<9} {run.rate:>9.0f} req/s")
    return runs


def median(runs, field):
    return statistics.median(getattr(run, field) for run in runs)


def print_relaying(targets, cases, runs):
    print("| case | server | req/s | × nginx | p50 µs | p99 µs | CPU µs/request | errors |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for case in cases:
        reference = median(runs["nginx", case.label], "rate")
        for target in targets:
            of_target = runs[target.name, case.label]
            rate = median(of_target, "rate")
            cpu = f"{median(of_target, 'cpu_us'):.1f}" if target.process else "–"
            print(
                f"| {case.label} | {target.name} | {rate:.0f} | {rate / reference:.2f} "
                f"| {median(of_target, 'p50_us'):.0f} | {median(of_target, 'p99_us'):.0f} "
                f"| {cpu} | {sum(run.errors for run in of_target)} |"
            )
