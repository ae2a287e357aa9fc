#!/usr/bin/env python3
"""A journal over its life: 200 runs with kill -9 among them, recomputed by a script of its own
(recompute.py), by JavaScript, and checked by `verify` for every byte of every file flipped."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading

import frag
import recompute

RUNS = 20 if frag.SMALL_SCALE else 200
KILLS = RUNS // 10
# Each flipped byte is a process that verifies.
FLIP_EVERY = 31 if frag.SMALL_SCALE else 1
HEADERS = {"Authorization": "Bearer t"}
# Prints what is awkward in JSON, then ends.
AGENT = """
import json, sys
task = json.loads(sys.stdin.readline())
odd = {"b": 1.0, "a": -0.0, "10": 1e21, "9": 1e-7, "big": 12345678901234567890, "text": "\\u00e9\\u2028\\"\\\\\\n\\u0001/\\u007f",
       "": None, "nested": [[{"2": True, "1": False}]], "f": 0.1 + 0.2, "e": 5e-324}
print(json.dumps({"type": "ODD", "payload": odd}))
print("plain \\u2028 text")
"""


def server(journal, agent):
    flags = ["--journal", str(journal), "--agent", f"{sys.executable} {agent}", "--history-size", "5"]
    return frag.Server("sleep 1000", *flags, environment={"FRAG_TOKEN": "t"})


def verify(journal):
    ran = subprocess.run([os.environ["FRAG_BIN"], "verify", journal], capture_output=True, text=True, check=False)
    return ran.returncode, (ran.stdout + ran.stderr).splitlines()


def invoke(ours):
    """The id of a new run; None when the server died before it answered."""
    try:
        status, body = ours.request("POST", "/_frag/invoke", b'{"input":"go"}', HEADERS)
    except (OSError, frag.http.client.HTTPException):
        return None
    answer = json.loads(body)
    if status == 409:
        return ""
    assert status == 200, (status, body)
    return answer["executionId"]


def kill_among_runs(journal, agent):
    """Invokes one after the other while somebody kills the server; which ids were answered."""
    dice, answered, kills = random.Random(3), [], 0
    while len(answered) < RUNS:
        ours = server(journal, agent)
        with ours:
            timer = None
            if kills < KILLS:
                kills += 1
                timer = threading.Timer(dice.uniform(0.05, 1.2), ours.kill)
                timer.start()
            while len(answered) < RUNS:
                run = invoke(ours)
                if run is None:
                    break
                if run:
                    answered.append(run)
            if timer is not None:
                timer.join()
    return answered, kills


def known(journal, agent, answered):
    """How each answered run ended, by the server itself."""
    ends = {}
    with server(journal, agent) as ours:
        for run in answered:
            status, record = ours.json("GET", f"/_frag/runs/{run}", headers=HEADERS)
            assert status == 200, f"{run} was answered and is lost"
            assert record["status"] in ("completed", "aborted"), record["status"]
            ends[record["status"]] = ends.get(record["status"], 0) + 1
    return ends


JAVASCRIPT = """
const { createHash } = require("node:crypto"), { readFileSync } = require("node:fs"), dir = process.argv[1];
const lines = (name) => readFileSync(`${dir}/${name}`, "utf8").split("\\n").slice(0, -1).map((line) => {
  const value = JSON.parse(line);
  if (JSON.stringify(value) !== line) throw new Error(`${name}: not as JavaScript writes it: ${line}`);
  return value;
});
const states = new Map(lines("state.jsonl").map((entry) => [entry.executionId, entry.state]));
let runs = 0;
for (const { executionId, startTime, endTime, digest } of lines("runs.jsonl")) {
  if (!digest) continue;
  const bundle = { executionId, actions: lines(`logs/${executionId}.jsonl`), finalState: states.get(executionId), startTime, endTime };
  if (createHash("sha256").update(JSON.stringify(bundle)).digest("hex") !== digest) throw new Error(executionId);
  runs += 1;
}
console.log(`${runs} runs recomputed by JavaScript`);
"""


def flip_every_byte(journal):
    files = [path for path in sorted(journal.rglob("*.jsonl")) if path.stat().st_size]
    flips = 0
    for path in files:
        name, whole = str(path.relative_to(journal)), path.read_bytes()
        for at in range(0, len(whole), FLIP_EVERY):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << (at % 7))]) + whole[at + 1 :])
            code, said = verify(journal)
            assert code == 1 and any(line.startswith(name + ":") for line in said), (name, at, code, said)
            flips += 1
        path.write_bytes(whole)
    assert verify(journal)[0] == 0
    return flips, len(files)


def main():
    with tempfile.TemporaryDirectory(prefix="frag-journal-") as place:
        journal, agent = pathlib.Path(place, "journal"), pathlib.Path(place, "agent.py")
        agent.write_text(AGENT)
        answered, kills = kill_among_runs(journal, agent)
        ends = known(journal, agent, answered)
        code, said = verify(journal)
        assert code == 0, said
        recompute.main(journal)
        print(f"{len(answered)} runs answered, {kills} kill -9 among them: none lost ({ends})")
        print(said[-1])
        if shutil.which("node"):
            subprocess.run(["node", "-e", JAVASCRIPT, journal], check=True)
        # A smaller one for every byte of it.
        small = pathlib.Path(place, "small")
        with server(small, agent) as ours:
            invoke(ours)
            frag.wait_for(lambda: '"digest"' in (small / "runs.jsonl").read_text(), 20, "the run is sealed")
        flips, files = flip_every_byte(small)
        print(f"{flips} bytes of {files} files flipped, one at a time: each found and its file named")


if __name__ == "__main__":
    main()
