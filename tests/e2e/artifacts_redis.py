#!/usr/bin/env python3
"""Artifacts in Redis: two servers on one store, Redis going away and coming back, a full Redis, a cluster.

Needs redis-server (Debian's package has it) and a build with the feature `redis`, as scripts/e2e makes it.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

import frag

START_SECONDS = 15


class Redis:
    """A redis-server in a directory of its own, which may end and start again."""

    def __init__(self, folder, *flags):
        self.folder = folder
        self.port, self.bus = frag.free_ports(2)
        self.argv = ["redis-server", "--port", str(self.port), "--bind", frag.LOOPBACK, "--dir", folder]
        self.argv += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *flags]
        self.process = None

    @classmethod
    def of_a_cluster(cls, folder):
        redis = cls(str(folder), "--cluster-enabled", "yes")
        redis.argv += ["--cluster-port", str(redis.bus)]
        return redis

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        frag.wait_for(lambda: self.ask("PING") == "+PONG", START_SECONDS, "redis-server answers")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        """One command; the first line of its answer, or None."""
        try:
            with socket.create_connection((frag.LOOPBACK, self.port), 5) as connection:
                connection.sendall(" ".join(words).encode() + b"\r\n")
                return connection.makefile("rb").readline().decode().strip()
        except OSError:
            return None

    @property
    def url(self):
        return f"redis://{frag.LOOPBACK}:{self.port}"


def server(url, *flags):
    # By the variable: a command line is public, and an address may hold a password.
    return frag.Server("sleep 9999", *flags, environment={"FRAG_ARTIFACTS": url})


def create(one, payload):
    status, body = one.request("POST", "/_frag/api/artifacts", body=json.dumps({"payload": payload}))
    check(status == 201, f"POST: {status} {body!r}")
    return json.loads(body)["id"]


def read(one, artifact):
    status, body = one.request("GET", f"/_frag/api/artifacts/{artifact}")
    return json.loads(body)["payload"] if status == 200 else status


def check(condition, what):
    if not condition:
        raise SystemExit(what)


def test_two_servers_and_a_restart(folder):
    redis = Redis(folder)
    with redis, server(redis.url) as one, server(redis.url) as other:
        kept = create(one, "kept")
        check(read(other, kept) == "kept", "the other server sees it")
        check(other.request("DELETE", f"/_frag/api/artifacts/{create(one, 'gone')}")[0] == 200, "DELETE")
        ttl = int(redis.ask("PTTL", f"{{artifacts}}:artifact:{kept}")[1:])
        check(86_390_000 < ttl <= 86_400_000, f"Redis forgets it by itself in {ttl} ms")
        redis.__exit__()
        for path in ("/_frag/api/artifacts/x", f"/_frag/{kept}", "/_frag/health"):
            check(one.request("GET", path)[0] == 503, f"{path} without Redis")
        status, body = one.request("POST", "/_frag/api/artifacts", body='{"payload":"x"}')
        check((status, body) == (503, b'{"error":"Artifact store is unavailable."}'), f"POST: {status} {body!r}")
        check(one.request("GET", "/_frag/status")[0] == 200, "status without Redis")
        with redis:
            for each in (one, other):
                check(read(each, kept) == "kept", "Redis is back, and so is what it kept")
                check(each.request("GET", "/_frag/health")[0] == 200, "health")
            check(read(other, create(one, "new")) == "new", "and it goes on")
    print("two servers on one Redis; 503 while it is away, all there when it is back")


def test_started_before_redis(folder):
    redis = Redis(folder)
    with server(redis.url) as one:
        check(one.request("GET", "/_frag/health")[0] == 503, "health before Redis")
        with redis:
            check(read(one, create(one, "x")) == "x", "once it is there")
    print("a server that was started before its Redis finds it")


def test_full(folder):
    with Redis(folder, "--maxmemory", "6mb") as redis, server(redis.url) as one:
        stored = []
        for _ in range(200):
            status, body = one.request("POST", "/_frag/api/artifacts", body=json.dumps({"payload": "x" * 100_000}))
            if status != 201:
                break
            stored.append(json.loads(body)["id"])
        check((status, body) == (507, b'{"error":"Artifact store is full."}'), f"full: {status} {body!r}")
        check(read(one, stored[0]) == "x" * 100_000, "reading from a full Redis")
        for artifact in stored[:10]:
            check(one.request("DELETE", f"/_frag/api/artifacts/{artifact}")[0] == 200, "deleting from a full Redis")
        create(one, "x")
        print(f"Redis full after {len(stored)} artifacts of 100 kB with 507, then well again")


def test_cluster(folder):
    first, second = pathlib.Path(folder, "1"), pathlib.Path(folder, "2")
    first.mkdir()
    second.mkdir()
    with Redis.of_a_cluster(first) as one, Redis.of_a_cluster(second) as two:
        one.ask("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        two.ask("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        one.ask("CLUSTER", "MEET", frag.LOOPBACK, str(two.port), str(two.bus))

        def agrees(node):
            with socket.create_connection((frag.LOOPBACK, node.port), 5) as connection:
                connection.sendall(b"CLUSTER INFO\r\nQUIT\r\n")
                text = connection.makefile("rb").read().decode()
            return "cluster_state:ok" in text and "cluster_known_nodes:2" in text

        frag.wait_for(lambda: agrees(one) and agrees(two), 60, "the cluster is one")
        # One of the two has the keys; whichever is named, they are found.
        with server(one.url) as here, server(two.url) as there:
            artifact = create(here, "in a cluster")
            check(read(there, artifact) == "in a cluster", "by the other node")
            body = json.dumps({"payload": "changed"})
            check(there.request("PUT", f"/_frag/api/artifacts/{artifact}", body=body)[0] == 200, "PUT")
            check(read(here, artifact) == "changed", "and back")
            check(here.request("POST", "/_frag/api/cleanup") == (200, b'{"deleted":0}'), "cleanup")
            check(here.request("DELETE", f"/_frag/api/artifacts/{artifact}")[0] == 200, "DELETE")
    print("a cluster of two nodes, asked by either")


def main():
    if shutil.which("redis-server") is None:
        frag.skip("no redis-server")
    for test in (test_two_servers_and_a_restart, test_started_before_redis, test_full, test_cluster):
        with tempfile.TemporaryDirectory(prefix="frag-e2e-") as folder:
            test(folder)


if __name__ == "__main__":
    sys.exit(main())
