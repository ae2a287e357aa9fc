#!/usr/bin/env python3
"""The Autobahn test suite against its own echo server, direct and through us: each case must end the same.

The suite needs Python 2.7, which AUTOBAHN_PYTHON names or pyenv has, and PyPI; skipped without them.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import frag

SKIPPED = 77
VENV = pathlib.Path(tempfile.gettempdir(), f"frag-e2e-autobahn-{os.getuid()}")
WSTEST = VENV / "bin" / "wstest"
# The echo server of the suite, without its look at the port in `Host`, which is ours.
ECHO = """
import os
from twisted.internet import reactor
from autobahntestsuite.echo import EchoServerProtocol
from autobahn.twisted.websocket import WebSocketServerFactory
factory = WebSocketServerFactory(None)
factory.protocol = EchoServerProtocol
factory.externalPort = None
factory.setProtocolOptions(failByDrop=False)
reactor.listenTCP(int(os.environ["PORT"]), factory, interface="127.0.0.1")
reactor.run()
"""
CASES = [f"{chapter}.*" for chapter in (1, 2, 3, 4, 5, 6, 7, 10)]
FIELDS = ["behavior", "behaviorClose", "remoteCloseCode"]


def install():
    if WSTEST.exists():
        return True
    pythons = sorted(pathlib.Path.home().glob(".pyenv/versions/2.7.*/bin/python"))
    python = os.environ.get("AUTOBAHN_PYTHON") or (str(pythons[-1]) if pythons else None)
    if python is None:
        return False
    return all(
        subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL).returncode == 0
        for command in [
            [python, "-m", "pip", "install", "--quiet", "--user", "virtualenv==20.15.1"],
            [python, "-m", "virtualenv", "--quiet", VENV],
            [VENV / "bin" / "pip", "install", "--quiet", "autobahntestsuite"],
        ]
    )


if not install():
    print("the suite cannot be installed")
    sys.exit(SKIPPED)

with tempfile.TemporaryDirectory(prefix="frag-autobahn-") as folder:
    folder = pathlib.Path(folder)
    (folder / "echo.py").write_text(ECHO)
    with frag.Server(f"{VENV / 'bin' / 'python'} {folder / 'echo.py'}") as server:
        server.wait_ready()
        agents = [("direct", server.app_port), ("through", server.port)]
        spec = {
            "outdir": str(folder / "reports"),
            "servers": [{"agent": agent, "url": f"ws://{frag.LOOPBACK}:{port}"} for agent, port in agents],
            "cases": CASES,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        with open(folder / "client.log", "wb") as log:
            command = [str(WSTEST), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
            subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True, timeout=300)
    index = json.loads((folder / "reports" / "index.json").read_text())

direct, through = index["direct"], index["through"]
for agent, cases in index.items():
    results = [case["behavior"] for case in cases.values()]
    counts = ", ".join(f"{results.count(result)} {result}" for result in sorted(set(results)))
    print(f"{agent}: {len(results)} cases: {counts}")
different = [
    f"{case}: direct {[direct[case][f] for f in FIELDS]}, through us {[through.get(case, {}).get(f) for f in FIELDS]}"
    for case in direct
    if any(direct[case][f] != through.get(case, {}).get(f) for f in FIELDS)
]
print("\n".join(different) or "no case differs")
if different or len(direct) < 200 or any(case["behavior"] == "FAILED" for case in direct.values()):
    sys.exit(1)
