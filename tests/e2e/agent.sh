#!/usr/bin/env bash
# The agent of examples/agent, driven from its task to its sealed run with curl: approved, rejected,
# made to wait, aborted, failed; and what the journal says of it all.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
example=$(cd "$here/../../examples/agent" && pwd)
command -v curl >/dev/null || { echo "no curl"; exit 77; }

work=$(mktemp -d)
mkdir "$work/site" "$work/kept"
read -r port app_port <<<"$(python3 "$here/frag.py" ports 2)"
FRAG_TOKEN=secret "$FRAG_BIN" --command "python3 -m http.server $app_port" --host 127.0.0.1 --port "$port" \
    --subprocess-port "$app_port" --root "$work/site" --state-dir "$work/kept" \
    --agent "python3 $example/agent.py" --require-approval write_file >"$work/log" 2>&1 &
server=$!
cleanup() { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT

at="http://127.0.0.1:$port/_frag"
call() { curl -sS --fail-with-body --max-time 30 -H "Authorization: Bearer secret" "$@"; }
field() { python3 -c 'import json,sys; value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[int(key)] if key.isdigit() else value[key]
print(value)' "$1"; }
is() { [ "$1" = "$2" ] || { echo "expected $2, got $1"; cat "$work/log"; exit 1; }; }
ended() { for _ in $(seq 600); do
    status=$(call "$at/runs/$1" | field status); [ "$status" = running ] || break; sleep 0.05; done; echo "$status"; }
invoke() { call "$at/invoke" -d "{\"input\":\"$1\"}" | field executionId; }

for _ in $(seq 200); do curl -s "$at/health" >/dev/null && break; sleep 0.05; done
call "$at/await" >/dev/null
curl -sN -H "Authorization: Bearer secret" "$at/stream/actions" >"$work/actions" &

run=$(invoke "greeting Ada")
asked=$(call "$at/approvals?wait=30")
is "$(field approvals.0.toolName <<<"$asked")" write_file
is "$(field approvals.0.args.path <<<"$asked")" greeting.html
is "$(test -e "$work/site/greeting.html" && echo there || echo not)" not
call "$at/approvals/$(field approvals.0.id <<<"$asked")" -d '{"decision":"approve","reason":"go on"}' >/dev/null
is "$(ended "$run")" completed
curl -sS "http://127.0.0.1:$port/greeting.html" | grep -q "Hello, Ada!"

rejected=$(invoke "greeting Eve")
asked=$(call "$at/approvals?wait=30")
call "$at/approvals/$(field approvals.0.id <<<"$asked")" -d '{"decision":"reject","reason":"not her"}' >/dev/null
is "$(ended "$rejected")" failed
call "$at/runs/$rejected" | grep -q "not allowed to write: not her"
curl -sS "http://127.0.0.1:$port/greeting.html" | grep -q "Hello, Ada!"

waiting=$(invoke wait)
until call "$at/runs/$waiting" | grep -q '"waiting"'; do sleep 0.05; done
call "$at/runs/$waiting/continue" -d '{"with":"care"}' >/dev/null
is "$(ended "$waiting")" completed
call "$at/runs/$waiting" | grep -q '"payload":{"with":"care"}'

aborted=$(invoke wait)
until call "$at/runs/$aborted" | grep -q '"waiting"'; do sleep 0.05; done
is "$(call -X POST "$at/abort" | field executionId)" "$aborted"
is "$(ended "$aborted")" aborted
is "$(ended "$(invoke fail)")" failed

for kind in PROGRESS HITL_APPROVAL_GRANTED HITL_APPROVAL_REJECTED CUSTOM_EVENT RUNTIME_EXECUTION_ABORTED; do
    [ "$kind" = CUSTOM_EVENT ] && grep -q '^event: custom-event' "$work/actions"
    grep -q "\"type\":\"$kind\"" "$work/actions"
done
kill "$server"; wait "$server" || true
"$FRAG_BIN" verify "$work/kept/journal"
python3 "$here/recompute.py" "$work/kept/journal"
sed -i 's/Hello/hello/; s/drafted/Drafted/' "$work/kept/journal/logs/$run.jsonl"
if "$FRAG_BIN" verify "$work/kept/journal" 2>"$work/said"; then echo "a changed log passed"; exit 1; fi
grep -q "^logs/$run.jsonl:" "$work/said"
echo "five runs: approved, rejected, continued, aborted, failed; the journal holds, a changed line is named"
