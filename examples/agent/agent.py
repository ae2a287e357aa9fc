#!/usr/bin/env python3
"""A small agent for `--agent`: asks before it writes, reports what it does.

It reads one JSON line, {"type":"invoke","input":…,"executionId":…}, and does what the input says:

    greeting            writes greeting.html, if somebody approves
    greeting NAME       the same, greeting NAME
    wait                waits until somebody lets it go on (POST runs/:id/continue)
    fail                ends badly

Every line it prints that is a JSON object with a `type` is an action; any other line is its output. The
tool call waits for an approval when the server was started with --require-approval write_file.
"""

import html
import json
import pathlib
import sys


def say(kind, **payload):
    """One action."""
    print(json.dumps({"type": kind, "payload": payload}), flush=True)


def hear():
    """The next line from the server; None when there is none."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def may(call, tool, **args):
    """Asks to use a tool and waits for the decision: whether, and why."""
    say("AGENT_TOOL_CALL_REQUESTED", id=call, toolName=tool, args=args)
    while (answer := hear()) is not None:
        if answer["type"].startswith("HITL_") and answer["payload"]["id"] == call:
            granted = answer["type"] == "HITL_APPROVAL_GRANTED"
            return granted, answer["payload"].get("reason")
    return False, "the server is gone"


def greet(run, name):
    page = f"<!doctype html>\n<title>Greeting</title>\n<p>Hello, {html.escape(name)}!\n"
    say("PROGRESS", step="drafted", bytes=len(page))
    granted, reason = may(f"{run}-write", "write_file", path="greeting.html", bytes=len(page))
    if not granted:
        print(f"not allowed to write: {reason}")
        return 1
    # We run where the app's files are.
    pathlib.Path("greeting.html").write_text(page, encoding="utf-8")
    say("PROGRESS", step="written", path="greeting.html")
    say("CUSTOM_EVENT", notice="greeting.html is new")
    return 0


def wait():
    print("waiting")
    sys.stdout.flush()
    while (message := hear()) is not None:
        if message["type"] == "continue":
            say("PROGRESS", step="continued", payload=message.get("payload"))
            return 0
    return 1


def main():
    task = hear()
    word, _, rest = task["input"].partition(" ")
    print(f"my task: {task['input']}", flush=True)
    match word:
        case "greeting":
            return greet(task["executionId"], rest or "world")
        case "wait":
            return wait()
        case "fail":
            print("as you wish", file=sys.stderr)
            return 3
    print("I know greeting, wait and fail")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # Aborted: the server sends SIGINT first.
        print("interrupted", flush=True)
        sys.exit(130)
