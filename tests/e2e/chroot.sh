#!/usr/bin/env bash
# The static server and a static app alone in an empty chroot (no /dev, no /proc, no /etc, no shell):
# as nobody, as root with --child-user, and with everything but --root read-only.
#
# FRAG_BIN and FRAG_APP (examples/fixture.rs) must be static; scripts/e2e builds them so.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if ((EUID != 0)); then echo "chroot needs root"; exit 77; fi
if ! unshare --mount true; then echo "unshare is not allowed"; exit 77; fi
for binary in "$FRAG_BIN" "$FRAG_APP"; do
    if readelf --program-headers "$binary" | grep -q INTERP; then echo "FAILED: $binary is not static"; exit 1; fi
done

readonly NOBODY=65534
folder=$(mktemp -d)
place=$folder/place
log=$folder/log
server=
finish() {
    local status=$?
    if [ -n "$server" ]; then kill -KILL "$server" 2>/dev/null || true; fi
    if ((status != 0)); then tail -n 50 "$log"; fi
    rm -rf "$folder"
}
trap finish EXIT
fail() { echo "FAILED: $*"; exit 1; }
same() { # what, expected, seen
    if [ "$2" != "$3" ]; then fail "$1: expected '$2', saw '$3'"; fi
}
fetch() { curl --silent --show-error --max-time 30 "$@"; }
code() { fetch --output /dev/null --write-out '%{http_code}' "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# Runs its arguments (a wrapper, which execs) and the server after them, and uses it.
try() { # name, uid of the app, wrapper…
    local name=$1 uid=$2
    shift 2
    read -r port app_port < <(python3 "$here/frag.py" ports 2)
    local base=http://127.0.0.1:$port
    "$@" --command "/app web $app_port" --root /data --host 127.0.0.1 --port "$port" \
        --subprocess-port "$app_port" "${more[@]}" >"$log" 2>&1 &
    server=$!
    for _ in $(seq 500); do
        if fetch --output /dev/null "$base/_frag/health" 2>/dev/null; then break; fi
        kill -0 "$server" 2>/dev/null || fail "$name: the server ended at start"
        sleep 0.02
    done
    same "$name: ready" 200 "$(code "$base/_frag/await?timeout=10")"
    same "$name: the app answers" 200 "$(code "$base/")"
    local pid
    pid=$(fetch "$base/_frag/status" | field pid)
    same "$name: the app's user" "$uid" "$(stat -c %u "/proc/$pid")"
    same "$name: its input" 0 "$(head -c 1 "/proc/$pid/fd/0" | wc -c)"
    same "$name: upload" 200 "$(code -X PUT --data-binary hello "$base/_frag/upload/new/file?restart=true")"
    same "$name: download" hello "$(fetch "$base/_frag/files/new/file")"
    same "$name: replaced" 200 "$(code -X PUT --data-binary again "$base/_frag/upload/new/file")"
    same "$name: download of the new one" again "$(fetch "$base/_frag/files/new/file")"
    same "$name: owner of the upload" "$uid" "$(stat -c %u "/proc/$server/root/data/new/file")"
    same "$name: owner of its folder" "$uid" "$(stat -c %u "/proc/$server/root/data/new")"
    same "$name: nothing else is left" "new new/file" \
        "$(cd "/proc/$server/root/data" && find . -mindepth 1 | sed 's|^\./||' | sort | xargs)"
    same "$name: ready after the restart" 200 "$(code "$base/_frag/await?timeout=10")"
    if [ "$(fetch "$base/_frag/status" | field pid)" = "$pid" ]; then fail "$name: not restarted"; fi
    pid=$(fetch "$base/_frag/status" | field pid)
    kill -KILL "$pid"
    same "$name: served after a crash" 200 "$(code "$base/")"
    kill -TERM "$server"
    local status=0
    wait "$server" || status=$?
    server=
    same "$name: exit code" 0 "$status"
    grep -q "no /proc" "$log" || fail "$name: it does not say what it lacks"
    if grep -E "WARN|ERROR" "$log" | grep -v "no /proc"; then fail "$name: it complains"; fi
    echo "ok: $name"
}

fresh() { # owner of the data
    rm -rf "$place"
    mkdir -p "$place/data"
    chmod 755 "$folder" "$place"
    cp "$FRAG_BIN" "$place/frag"
    cp "$FRAG_APP" "$place/app"
    chmod 755 "$place/frag" "$place/app"
    chown "$1:$1" "$place/data"
}

# A mount namespace in which all is read-only but the data, which is a file system of its own.
read_only() { # owner of the data, words…
    exec unshare --mount bash -euc '
        mount --bind "$1" "$1"
        mount -t tmpfs -o "uid=$2,gid=$2,mode=755" tmpfs "$1/data"
        mount -o remount,ro,bind "$1"
        if touch "$1/x" 2>/dev/null; then echo "not read-only"; exit 1; fi
        place=$1
        shift 2
        exec "$@"' - "$place" "$@"
}

more=()
fresh "$NOBODY"
try "as nobody" "$NOBODY" chroot --userspec="$NOBODY:$NOBODY" "$place" /frag
fresh "$NOBODY"
try "as nobody, read-only" "$NOBODY" read_only "$NOBODY" chroot --userspec="$NOBODY:$NOBODY" "$place" /frag
more=(--child-user "$NOBODY:$NOBODY")
fresh 0
try "as root with --child-user" "$NOBODY" chroot "$place" /frag
fresh 0
try "as root with --child-user, read-only" "$NOBODY" read_only 0 chroot "$place" /frag

# What is there but cannot run for want of its loader is not "not found".
cp /bin/true "$place/true"
if readelf --program-headers "$place/true" | grep -q INTERP; then
    chroot "$place" /frag --command /true --root /data --port 0 --host 127.0.0.1 \
        --max-restarts 0 --exit-on-failure >"$log" 2>&1 && fail "it ran"
    grep -q "cannot execute /true: its interpreter or loader is missing" "$log" || fail "it does not say why"
    echo "ok: a missing loader is named"
fi
