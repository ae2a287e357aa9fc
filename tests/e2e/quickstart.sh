#!/usr/bin/env bash
# What the README shows, in its order, with the two programs everybody has: python3 and curl.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
read -r port app_port < <(python3 "$here/frag.py" ports 2)
base=http://localhost:$port
folder=$(mktemp -d)
server=
finish() {
    local status=$?
    if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi
    if ((status != 0)); then tail -n 50 "$folder.log"; fi
    rm -rf "$folder" "$folder.log"
}
trap finish EXIT
cd "$folder"

fail() { echo "FAILED: $*"; exit 1; }
fetch() { curl --silent --show-error --max-time 30 "$@"; }
code() { fetch --output /dev/null --write-out '%{http_code}' "$@"; }
same() { # what, expected, seen
    if [ "$2" != "$3" ]; then fail "$1: expected '$2', saw '$3'"; fi
    echo "ok: $1"
}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
begin() { # command
    "$FRAG_BIN" --command "$1" --port "$port" --subprocess-port "$app_port" --host 127.0.0.1 >>"$folder.log" 2>&1 &
    server=$!
    for _ in $(seq 500); do
        if fetch --fail --output /dev/null "$base/_frag/await?timeout=10" 2>/dev/null; then return; fi
        kill -0 "$server" 2>/dev/null || fail "the server ended at start"
        sleep 0.02
    done
    fail "the server does not answer"
}

# -- a directory, served by python's own server
echo "first" >index.html
begin "python3 -m http.server $app_port --bind 127.0.0.1"
same "the wrapped server's page" "first" "$(fetch "$base/")"
same "a page it does not have" 404 "$(code "$base/no-such-file")"
same "status is 200" 200 "$(code "$base/_frag/status")"
same "status as text" "Running." "$(fetch --header 'Accept: text/plain' "$base/_frag/status")"
same "health is 200" 200 "$(code "$base/_frag/health")"

# -- an upload shows at once
printf '# Read me\n' >README.md
mkdir elsewhere
printf '# Read me\na new line\n' >elsewhere/README.md
(cd elsewhere && fetch --fail -X POST --data-binary "@README.md" "$base/_frag/upload/README.md" >/dev/null)
same "the upload is served at once" "$(cat elsewhere/README.md)" "$(fetch "$base/README.md")"
sum=$(sha256sum <elsewhere/README.md | cut -d' ' -f1)
answer=$(fetch --fail --upload-file elsewhere/README.md "$base/_frag/upload/new/deep/file.md")
same "its answer has the sum" "$sum" "$(field sha256 <<<"$answer")"
same "its answer has the path" "new/deep/file.md" "$(field path <<<"$answer")"
same "folders are made" "$(cat elsewhere/README.md)" "$(fetch "$base/new/deep/file.md")"
same "download" "$(cat elsewhere/README.md)" "$(fetch "$base/_frag/files/new/deep/file.md")"

# -- a restart takes effect
before=$(fetch "$base/_frag/status" | field pid)
same "restart is 200" 200 "$(code -X POST "$base/_frag/restart?wait=ready")"
after=$(fetch "$base/_frag/status" | field pid)
if [ "$before" = "$after" ]; then fail "the restart kept pid $before"; fi
if kill -0 "$before" 2>/dev/null; then fail "the old process $before is still there"; fi
echo "ok: another process after the restart"
same "and it serves" "first" "$(fetch "$base/")"

# -- a reader may look at the app and at nothing of ours
reader='x-verified-user-data: {"readOnly":true}'
same "a reader sees the app" 200 "$(code --header "$reader" "$base/")"
same "a reader may not upload" 403 "$(code --header "$reader" -X POST --data-binary x "$base/_frag/upload/README.md")"
same "a reader may not restart" 403 "$(code --header "$reader" -X POST "$base/_frag/restart")"
same "a reader may not ask for the status" 403 "$(code --header "$reader" "$base/_frag/status")"
same "a reader may wait" 200 "$(code --header "$reader" "$base/_frag/await")"
same "the reader changed nothing" "$(cat elsewhere/README.md)" "$(fetch "$base/README.md")"
same "a broken header is refused" 400 "$(code --header 'x-verified-user-data: {' "$base/_frag/status")"
same "a writer may upload" 200 \
    "$(code --header 'x-verified-user-data: {"readOnly":false}' -X POST --data-binary x "$base/_frag/upload/x")"

# -- it stops when it is told to, and takes the app along
child=$(fetch "$base/_frag/status" | field pid)
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
same "exit code after SIGTERM" 0 "$status"
if kill -0 "$child" 2>/dev/null; then fail "the app $child outlived us"; fi
echo "ok: the app is gone too"

# -- new code: upload it, restart, look at the page
cat >app.py <<'APP'
import http.server, os
TEXT = b"one\n"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
APP
begin "python3 app.py"
same "the app before" "one" "$(fetch "$base/")"
sed 's/one/two/' app.py >elsewhere/app.py
fetch --fail --upload-file elsewhere/app.py "$base/_frag/upload/app.py" >/dev/null
same "an upload alone does not restart" "one" "$(fetch "$base/")"
same "restart is 200 again" 200 "$(code -X POST "$base/_frag/restart")"
same "the app after" "two" "$(fetch "$base/")"
sed 's/two/three/' elsewhere/app.py >elsewhere/third.py
fetch --fail --upload-file elsewhere/third.py "$base/_frag/upload/app.py?restart=true" >/dev/null
same "upload and restart in one" "three" "$(fetch "$base/")"
