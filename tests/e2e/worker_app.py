"""A worker for workers.py. Inputs say what to emit:

    count N PAUSE BATCH    N numbered text_deltas with the time in them, BATCH at a time
    pad N BYTES            N text_deltas of that size
    say TEXT               one text_done
"""

import json
import sys
import time


def emit(event, **data):
    sys.stdout.write(json.dumps({"event": event, "data": data}) + "\n")


for line in sys.stdin:
    command, *rest = json.loads(line)["content"].split(" ")
    if command == "count":
        count, batch = int(rest[0]), int(rest[2])
        for number in range(1, count + 1):
            emit("text_delta", text=f"{number} {time.time():.6f}")
            if number % batch == 0:
                sys.stdout.flush()
                time.sleep(float(rest[1]))
    elif command == "pad":
        for number in range(int(rest[0])):
            emit("text_delta", text=f"{number} " + "x" * int(rest[1]))
    else:
        emit("text_done", text=" ".join(rest))
    emit("run_end", result="finished")
    sys.stdout.flush()
