"""An agent that counts: event_agent.py EVENTS PER_SECOND."""

import json
import sys
import time

events, per_second = int(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
began = time.monotonic()
for n in range(events):
    sys.stdout.write(json.dumps({"type": "COUNT", "payload": {"n": n}}) + "\n")
    if n % 50 == 49:
        sys.stdout.flush()
        pause = began + n / per_second - time.monotonic()
        if pause > 0:
            time.sleep(pause)
sys.stdout.flush()
