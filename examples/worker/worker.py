#!/usr/bin/env python3
"""A worker: reads one JSON line for each input and answers it with text, word by word.

It speaks the little protocol of --worker with nothing but the standard library. A line on standard
output that is one of the known events goes to the observers as it is; any other line is text.
"""

import json
import os
import signal
import sys
import time

# Between two words, so that there is something to see.
PAUSE_SECONDS = float(os.environ.get("WORKER_PAUSE", "0.05"))


class Interrupted(Exception):
    """SIGINT came: whoever cancels the worker wants it to end now."""


def interrupt(*_):
    raise Interrupted


def emit(event, **data):
    """One event, on one line, at once."""
    line = {"event": event}
    if data:
        line["data"] = data
    print(json.dumps(line, ensure_ascii=False), flush=True)


def say(text):
    """Says something as a model would: in pieces, then as a whole, which enters the transcript."""
    words = text.split(" ")
    for number, word in enumerate(words):
        emit("text_delta", text=word if number == 0 else " " + word)
        time.sleep(PAUSE_SECONDS)
    emit("text_done", text=text)


def answer(entry, turn):
    content = entry["content"]
    emit("turn_start", turn=turn)
    if entry["kind"] == "system":
        say(f"noted: {content}")
    elif content == "fail":
        emit("error", code="invalid_request", message="asked to fail")
    else:
        say(f"{os.environ['WORKER_ID']} heard: {content}")
    emit("turn_end", turn=turn, result="finished")
    # From here on the next input is taken.
    emit("run_end", result="finished")


def main():
    signal.signal(signal.SIGINT, interrupt)
    # A worker that is stopped has nothing to finish; an unfinished text is simply not there.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    intent = json.loads(os.environ["WORKER_INTENT"])
    profile = os.environ["WORKER_PROFILE"]
    print(f"{profile} begins, intent {intent['kind']}", file=sys.stderr, flush=True)
    for turn, line in enumerate(sys.stdin, 1):
        answer(json.loads(line), turn)


if __name__ == "__main__":
    try:
        main()
    except Interrupted:
        sys.exit(130)
