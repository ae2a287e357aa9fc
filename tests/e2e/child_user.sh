#!/usr/bin/env bash
# --child-user from the inside: an app of another uid tries to signal us, to read our environment, memory
# and descriptors, the token and the state, and to write outside of what is its own.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if ((EUID != 0)); then echo "--child-user needs root"; exit 77; fi

# What whoever started this script left open would be the app's too.
for descriptor in /proc/$$/fd/*; do
    number=${descriptor##*/}
    if ((number > 2 && number < 255)); then eval "exec $number>&-"; fi
done

# Nobody else's, so that the app may kill all of it.
readonly USER_ID=64321 GROUP_ID=64322 TOKEN=a-token-nobody-else-knows
read -r port app_port < <(python3 "$here/frag.py" ports 2)
base=http://127.0.0.1:$port
folder=$(mktemp -d)
server=
finish() {
    local status=$?
    if [ -n "$server" ]; then kill -KILL "$server" 2>/dev/null || true; fi
    if ((status != 0)); then tail -n 50 "$folder/log"; fi
    rm -rf "$folder"
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }
same() { # what, expected, seen
    if [ "$2" != "$3" ]; then fail "$1: expected '$2', saw '$3'"; fi
    echo "ok: $1"
}
fetch() { curl --silent --show-error --max-time 30 --header "Authorization: Bearer $TOKEN" "$@"; }
code() { fetch --output /dev/null --write-out '%{http_code}' "$@"; }
wait_for() { # file
    for _ in $(seq 500); do
        if [ -e "$1" ]; then return; fi
        sleep 0.02
    done
    fail "no $1"
}

chmod 755 "$folder"
mkdir "$folder/root" "$folder/root/own" "$folder/state" "$folder/outside"
chown "$USER_ID:$GROUP_ID" "$folder/root/own"
printf '%s\n' "$TOKEN" >"$folder/token"
chmod 600 "$folder/token"
echo old >"$folder/root/replaced"

# Each line: what was tried, and whether it succeeded. It runs to its end once; then the app only stays.
cat >"$folder/app.sh" <<'APP'
cd own
if [ -e done ]; then exec sleep 100000; fi
tried() { # what, command…
    what=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "yes $what" >>results; else echo "no $what" >>results; fi
}
tried "signal us" kill -USR1 "$PPID"
tried "end us" kill -TERM "$PPID"
tried "kill us" kill -KILL "$PPID"
tried "ask whether it could" kill -0 "$PPID"
for name in environ maps mem auxv stack; do tried "read our $name" head -c 1 "/proc/$PPID/$name"; done
tried "list our descriptors" ls "/proc/$PPID/fd/"
tried "walk our working directory" ls "/proc/$PPID/cwd/"
tried "read the token" cat "$1/token"
tried "write the token" sh -c 'echo x >"$1/token"' - "$1"
tried "write the state" touch "$1/state/x"
tried "write beside the root" touch "$1/outside/x"
tried "write beside what is its own" touch ../x
tried "replace a file of ours" mv results ../replaced
tried "write to /etc" touch /etc/frag-child-user-was-here
tried "become root" setpriv --reuid=0 true
tried "renice us" renice -n 19 -p "$PPID"
tried "write what is its own" touch mine
{ id -u; id -g; id -G; } | xargs >ids
ls /proc/self/fd | xargs >descriptors
grep -E '^Cap(Eff|Prm|Inh|Amb)' /proc/self/status | cut -f 2 | sort -u | xargs >capabilities
{ env | grep -c '^FRAG_' || true; } >settings
ln -s /etc link
ln -s "$1/token" token
mkfifo pipe
touch done
kill -KILL -1
APP

# A worker answers an input with the same about itself.
cat >"$folder/worker.sh" <<'WORKER'
while read -r line; do
    { id -u; id -g; id -G; } | xargs
    grep -E '^Cap(Eff|Prm|Inh|Amb)' /proc/self/status | cut -f 2 | sort -u | xargs
    ls /proc/self/fd | xargs
    { env | grep -c '^FRAG_' || true; }
    for what in 'kill -TERM $PPID' 'head -c 1 /proc/$PPID/environ' 'cat "$1/token"' 'touch "$1/state/x"' 'ls own'; do
        if (eval "$what") >/dev/null 2>&1; then echo "yes $what"; fi
    done
    echo '{"event":"run_end","data":{"result":"finished"}}'
done
WORKER

FRAG_TOKEN_FILE="$folder/token" FRAG_COMMAND="sh $folder/app.sh $folder" "$FRAG_BIN" --root "$folder/root" \
    --host 127.0.0.1 --port "$port" --subprocess-port "$app_port" --state-dir "$folder/state" \
    --child-user "$USER_ID:$GROUP_ID" --exec any \
    --worker "runtime_default=sh $folder/worker.sh $folder" >"$folder/log" 2>&1 &
server=$!
own=$folder/root/own
wait_for "$own/done"
chmod 711 "$folder" # as it was, whatever the app did

same "what the app could do" "yes write what is its own" "$(grep '^yes' "$own/results")"
same "how much it could not" 20 "$(grep -c '^no' "$own/results")"
same "user and groups" "$USER_ID $GROUP_ID $GROUP_ID" "$(cat "$own/ids")"
# The fourth is the listing's own.
same "descriptors it inherited" "0 1 2 3" "$(cat "$own/descriptors")"
same "capabilities" "0000000000000000" "$(cat "$own/capabilities")"
same "settings of ours it sees" 0 "$(cat "$own/settings")"

# It killed everything it may kill; that was not us.
for _ in $(seq 500); do
    if fetch "$base/_frag/status" | grep -q '"restarts":1,'; then break; fi
    sleep 0.02
done
same "we live, and it was started again" 1 \
    "$(fetch "$base/_frag/status" | python3 -c 'import json, sys; print(json.load(sys.stdin)["restarts"])')"
same "without the token nobody controls us" 401 \
    "$(curl --silent --output /dev/null --write-out '%{http_code}' "$base/_frag/status")"

# What admins run over HTTP is as little of ours as the app.
exec_body() { python3 -c 'import json, sys; print(json.dumps({"stream": False, "args": sys.argv[1:]}))' "$@"; }
run() { fetch --header 'Content-Type: application/json' --data "$(exec_body "$@")" "$base/_frag/exec"; }
stdout() { python3 -c 'import json, sys; print(json.load(sys.stdin)["stdout"], end="")'; }
same "user and groups of a run" "$USER_ID $GROUP_ID $GROUP_ID" \
    "$(run sh -c '{ id -u; id -g; id -G; } | xargs' | stdout)"
same "what a run could do" "yes list" "$(run sh -c '
    tried() { what=$1; shift; if "$@" >/dev/null 2>&1; then echo "yes $what"; fi; }
    tried "end us" kill -TERM "$PPID"
    tried "read our environment" head -c 1 "/proc/$PPID/environ"
    tried "read the token" cat "$0/token"
    tried "write the state" touch "$0/state/x"
    tried "become root" setpriv --reuid=0 true
    tried list ls own' "$folder" | stdout)"
same "capabilities of a run" "0000000000000000" \
    "$(run sh -c 'grep -E "^Cap(Eff|Prm|Inh|Amb)" /proc/self/status | cut -f 2 | sort -u | xargs' | stdout)"
same "descriptors a run inherited" "0 1 2 3" "$(run sh -c 'ls /proc/self/fd | xargs' | stdout)"

# Nor does a worker have more.
say() { fetch --header 'Content-Type: application/json' --data "$1" "$base/_frag/v1/workers$2"; }
field() { python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
say '{"intent":{"kind":"assistant"},"profile":{"kind":"runtime_default"}}' "" >/dev/null
same "an input is accepted" 1 "$(say '{"kind":"user","content":"go"}' /worker-00000001/input | field '["ack"]["transcript_sequence"]')"
for _ in $(seq 500); do
    if fetch "$base/_frag/v1/workers/worker-00000001" | grep -q '"transcript_len":2,'; then break; fi
    sleep 0.02
done
same "user, groups, capabilities, descriptors, settings of ours, and what a worker could do" \
    "$USER_ID $GROUP_ID $GROUP_ID|0000000000000000|0 1 2 3|0|yes ls own" \
    "$(fetch "$base/_frag/v1/workers/worker-00000001/transcript" | field '["transcript"]["items"][1]["content"].replace("\n", "|")')"

# Uploads become the app's, also what was root's.
owner() { stat -c %u:%g "$1"; }
same "upload" 200 "$(code -X PUT --data-binary x "$base/_frag/upload/made/deep/file")"
for made in made made/deep made/deep/file; do
    same "owner of $made" "$USER_ID:$GROUP_ID" "$(owner "$folder/root/$made")"
done
same "upload over a file of root's" 200 "$(code -X PUT --data-binary x "$base/_frag/upload/replaced")"
same "owner of that" "$USER_ID:$GROUP_ID" "$(owner "$folder/root/replaced")"
same "owner of the root, which was there" 0:0 "$(owner "$folder/root")"
same "nothing else was given away" 0:0 "$(owner "$folder/token")"

# We are root: what the app lays out must not lead us astray.
for path in own/link/passwd own/token own/pipe; do
    case $(code "$base/_frag/files/$path") in
        40[0-9]) echo "ok: $path is refused" ;;
        *) fail "$path: $(code "$base/_frag/files/$path")" ;;
    esac
done
case $(code -X PUT --data-binary x "$base/_frag/upload/own/link/frag-child-user-was-here") in
    40[0-9]) echo "ok: an upload through its link is refused" ;;
    *) fail "an upload through its link" ;;
esac
same "upload over its link" 200 "$(code -X PUT --data-binary x "$base/_frag/upload/own/token")"
same "the token is what it was" "$TOKEN" "$(cat "$folder/token")"
if [ -e /etc/frag-child-user-was-here ]; then fail "it wrote to /etc"; fi

kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
same "exit code" 0 "$status"
if pgrep --uid "$USER_ID" >/dev/null; then fail "a process of the app is left"; fi
echo "ok: nothing of the app is left"
