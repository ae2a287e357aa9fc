#!/usr/bin/env python3
"""The metrics by others' judgement, and true: promtool and the parser of Prometheus' own Python client take
the page, before and after work; and what many clients did at once, a crash, an upload and an event stream are
counted to the last one.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "frag-e2e", "metrics")
VENV = CACHE / "venv"
PYTHON = VENV / "bin" / "python"
SKIPPED = 77

if pathlib.Path(sys.prefix) != VENV:
    probe = [PYTHON, "-I", "-c", "import prometheus_client"]
    if not PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        CACHE.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode == 0
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "prometheus-client>=0.20"]
        if not made or subprocess.run(pip, timeout=120).returncode != 0:
            print("prometheus-client cannot be installed")
            sys.exit(SKIPPED)
    os.execv(PYTHON, [PYTHON, "-I", __file__])

# Isolated, Python does not look beside this file.
sys.path.insert(0, str(HERE))
import concurrent.futures

import frag
from prometheus_client.parser import text_string_to_metric_families

CLIENTS, EACH = 16, 50 if frag.SMALL_SCALE else 500


def scrape(server):
    """{(name, ((label, value), …)): number}, of a page that all parsers take."""
    status, body = server.request("GET", "/_frag/metrics")
    assert status == 200, (status, body)
    text = body.decode()
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
        assert checked.returncode == 0 and not checked.stderr, checked.stderr
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("counter", "gauge", "histogram"), family
        assert family.documentation, family
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def number(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


def becomes(server, wanted, name, **labels):
    """A request is counted right after its client has the answer."""
    frag.wait_for(lambda: number(scrape(server), name, **labels) == wanted, 10, f"{name} {labels} is {wanted}")


def many(server):
    connection = server.connect()
    for _ in range(EACH):
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()


with frag.Server(frag.app("web"), "--stop-grace", "1s") as server:
    server.wait_ready()
    before = scrape(server)
    assert all(value == 0 for (name, labels), value in before.items() if dict(labels).get("class") == "relay"), before
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(many, [server] * CLIENTS))
    becomes(server, CLIENTS * EACH, "frag_http_requests_total", **{"class": "relay", "code": "2xx"})
    becomes(server, CLIENTS * EACH, "frag_http_request_duration_seconds_count", **{"class": "relay"})
    samples = scrape(server)
    sent = number(samples, "frag_http_sent_bytes_total", **{"class": "relay"})
    _, pid = server.request("GET", "/")
    assert sent == CLIENTS * EACH * len(pid), (sent, pid)
    # Within what a few threads may come and go with.
    assert abs(number(samples, "process_resident_memory_bytes") / 1024 - server.memory_kib()) < 4096

    # A crash is a restart, and a request meanwhile is held, not lost.
    os.kill(int(pid), signal.SIGKILL)
    assert server.request("GET", "/")[0] == 200
    becomes(server, 1, "frag_server_restarts_total")
    becomes(server, 1, "frag_server_state", state="ready")
    becomes(server, CLIENTS * EACH + 2, "frag_http_requests_total", **{"class": "relay", "code": "2xx"})

    assert server.request("PUT", "/_frag/upload/x", body=b"12345")[0] == 200
    becomes(server, 1, "frag_uploads_total")
    becomes(server, 5, "frag_upload_bytes_total")

    listener = server.connect()
    listener.request("GET", "/_frag/events")
    stream = listener.getresponse()
    becomes(server, 1, "frag_event_subscribers", stream="events")
    becomes(server, 1, "frag_http_streams")
    stream.close()
    listener.close()
    becomes(server, 0, "frag_event_subscribers", stream="events")
    becomes(server, 0, "frag_http_streams")
    assert number(scrape(server), "frag_http_panics_total") == 0
    print(f"{CLIENTS * EACH + 2} requests of {CLIENTS} clients, counted to the last; {len(samples)} series")
    print("promtool: " + ("no complaint" if shutil.which("promtool") else "not here"))
