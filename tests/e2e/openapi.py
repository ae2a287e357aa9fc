#!/usr/bin/env python3
"""The description of the routes by others' judgement: openapi-spec-validator takes the document, and schemathesis,
which asks the server whatever the document allows and what it does not, finds no 5xx, no status, type or shape
that is not described, and 405 with a true `Allow` for every other method.

What has no end is left out (event streams, following), and what ends the rest (`stop`). Of two checks of
schemathesis none is asked: parameters we do not know are ignored on purpose, and there are rules (a profile must
be known, a digest must fit) that no schema tells.
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "frag-e2e", "openapi")
VENV = CACHE / "venv"
PYTHON = VENV / "bin" / "python"
SKIPPED = 77
PACKAGES = ["schemathesis>=4.32,<5", "openapi-spec-validator>=0.7"]

if pathlib.Path(sys.prefix) != VENV:
    probe = [PYTHON, "-I", "-c", "import schemathesis, openapi_spec_validator"]
    if not PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        CACHE.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode == 0
        pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        if not made or subprocess.run(pip, timeout=300).returncode != 0:
            print("schemathesis cannot be installed")
            sys.exit(SKIPPED)
    os.execv(PYTHON, [PYTHON, "-I", __file__])

import json

# Isolated, Python does not look beside this file.
sys.path.insert(0, str(HERE))
import frag
from openapi_spec_validator import validate

TOKEN = "correct-horse"
EXAMPLES = 4 if frag.SMALL_SCALE else 25
SECONDS = 20 if frag.SMALL_SCALE else 150
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
]
ENDLESS = r"^/(events|stream/.*|stop|exec/\{run_id\}|v1/workers/\{id\}/events/ws)$"
# The control page, which with a token is not on the public port: 404 to every method.
ELSEWHERE = "^/$"


def schemathesis(document, server, checks, *filters):
    words = [VENV / "bin" / "schemathesis", "run", document, "--url", f"http://127.0.0.1:{server.port}/_frag"]
    words += ["--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(checks), *filters]
    words += ["--phases", "coverage,fuzzing", "--max-examples", EXAMPLES, "--max-time", SECONDS, "--seed", 1]
    words += ["--request-timeout", 10, "--continue-on-failure", "--no-shrink", "--warnings", "off"]
    environment = dict(os.environ, SCHEMATHESIS_HOOKS="openapi_hooks", PYTHONDONTWRITEBYTECODE="1")
    environment["PYTHONPATH"] = str(HERE)
    ran = subprocess.run(
        list(map(str, words)), cwd=server.root.parent, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    summary = [line for line in ran.stdout.splitlines() if "generated" in line or "Tested:" in line]
    print(*filters[:2], "; ".join(map(str.strip, summary)))
    if ran.returncode != 0:
        print(ran.stdout[-20000:])
    return ran.returncode == 0


with frag.Server(
    frag.app("web"),
    *("--exec", "/bin/echo", "--agent", "/bin/cat", "--worker", "runtime_default=/bin/cat"),
    *("--max-upload", "64KiB", "--stop-grace", "1s"),
    environment={"FRAG_TOKEN": TOKEN},
) as server:
    server.wait_ready()
    status, document = server.json("GET", "/_frag/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
    assert status == 200, status
    validate(document)
    print(f"{sum(map(len, document['paths'].values()))} operations on {len(document['paths'])} paths: valid")
    file = server.root.parent / "openapi.json"
    file.write_text(json.dumps(document))
    # The artifacts' contract has 404 where others have 405.
    passed = [
        schemathesis(file, server, [*CHECKS, "unsupported_method"], "--exclude-tag", "artifacts", "--exclude-path-regex", f"{ENDLESS}|{ELSEWHERE}"),
        schemathesis(file, server, CHECKS, "--include-tag", "artifacts"),
    ]
    status, text = server.request("GET", "/_frag/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert status == 200 and b"frag_http_panics_total 0\n" in text, text
    assert all(passed)
