"""Recomputes a journal's digests and chain, knowing nothing of the server but the format: recompute.py DIR."""

import hashlib
import json
import pathlib
import sys


def lines(path):
    # Not splitlines, which also splits at U+2028.
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def main(journal):
    states = {}
    for line in lines(journal / "state.jsonl"):
        entry = json.loads(line)
        # The text of the state as it stands between its neighbours.
        states[entry["executionId"]] = line.partition('"state":')[2].rpartition(',"sha256":')[0]
    chain, runs = "0" * 64, 0
    for number, line in enumerate(lines(journal / "runs.jsonl"), 1):
        run = json.loads(line)
        if "digest" not in run:
            continue
        name = run["executionId"]
        actions = ",".join(lines(journal / "logs" / f"{name}.jsonl"))
        bundle = f'{{"executionId":{json.dumps(name)},"actions":[{actions}],"finalState":{states[name]}'
        bundle += f',"startTime":{run["startTime"]},"endTime":{run["endTime"]}}}'
        digest = hashlib.sha256(bundle.encode()).hexdigest()
        assert digest == run["digest"], f"runs.jsonl:{number}: the digest of {name} is {digest}"
        chain = hashlib.sha256((chain + digest).encode()).hexdigest()
        assert chain == run["chain"], f"runs.jsonl:{number}: the chain breaks"
        runs += 1
    print(f"{runs} runs recomputed; the chain ends with {chain}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
