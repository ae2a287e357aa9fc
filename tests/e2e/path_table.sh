#!/usr/bin/env bash
# Hostile and merely odd paths, for uploading, reading and deleting. What is refused is refused with a
# typed error, and nothing outside the root is read or changed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
marker=frag-e2e-$$
server=
end_server() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi
    server=
}
finish() {
    local status=$?
    end_server
    if ((status != 0)); then tail -n 50 "$folder/log"; fi
    rm -rf "$folder"
}
trap finish EXIT

failures=0 rows=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
listening() { curl --silent --output /dev/null --max-time 5 "$base/_frag/health"; }
begin() { # a shell command that ends in exec'ing "$@"
    read -r port app_port < <(python3 "$here/frag.py" ports 2)
    base=http://127.0.0.1:$port
    "$@" "$FRAG_BIN" --command "sleep 100000" --port "$port" --subprocess-port "$app_port" --host 127.0.0.1 \
        >>"$folder/log" 2>&1 &
    server=$!
    for _ in $(seq 500); do
        if listening; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.02
    done
    echo "the server does not answer"
    exit 1
}

# Sends a request for a path exactly as written; sets status and body.
ask() { # method, path, curl arguments…
    local method=$1 path=$2
    shift 2
    body=$folder/body
    : >"$body"
    status=$(curl --path-as-is --globoff --silent --show-error --max-time 30 --output "$body" \
        --write-out '%{http_code}' --request "$method" "$@" "$base$path" || true)
}
shorten() { if ((${#1} > 60)); then echo "${1:0:40}… (${#1} characters)"; else echo "$1"; fi; }
typed() { grep -Eq '"error": ?\{"code": ?"[a-z][a-z0-9_]*", ?"message": ?".+"' "$body"; }
refused() { # what, range of statuses (a regular expression)
    rows=$((rows + 1))
    if ! [[ $status =~ ^$2$ ]]; then fail "$1: $status instead of a refusal: $(head -c 200 "$body")"; return; fi
    if ! typed; then fail "$1: $status without a typed error: $(head -c 200 "$body")"; fi
}
put() { ask PUT "/_frag/upload/$1" --data-binary "uploaded"; }

outside=$folder/outside root=$folder/root
mkdir "$root" "$root/dir" "$outside"
echo "untouched" >"$outside/secret"
echo "content" | tee "$root/real.txt" >"$root/dir/child"
ln -s ../outside/secret "$root/link-file"
ln -s ../outside "$root/link-dir"
ln -s "$outside" "$root/link-abs"
ln -s loop "$root/loop"
ln -s nowhere "$root/dangling"
state() { find "$outside" -printf '%P %y %s %T@ %m\n' | sort; cat "$outside/secret"; }
before=$(state)

cd "$root"
begin env

# -- leaving the root: by no method
long=$(printf 'n%.0s' $(seq 4096))
escapes=(
    '..' '../' '../outside/secret' '../outside/new' "../../../../../../../tmp/$marker"
    'a/../../outside/new' 'dir/../../outside/secret' './../outside/secret' 'dir/..' 'dir/./../..'
    '%2e%2e/outside/secret' '%2E%2E/outside/new' '.%2e/outside/secret' '..%2foutside%2fsecret' '%2e%2e%2foutside%2fnew'
    '%252e%252e/outside/secret' '%252e%252e%252foutside%252fnew' '..%252foutside/secret'
    "/tmp/$marker" "//tmp/$marker" "%2ftmp%2f$marker" '/etc/passwd' '%2fetc%2fpasswd'
    '..\outside\secret' '..%5coutside%5csecret' 'dir\..\..\outside\new'
    'link-dir/secret' 'link-dir/new' 'link-abs/secret' 'link-abs/new' 'link-dir/../outside/secret'
    '..%00/outside/secret' 'real.txt%00' '%00' 'a%00b'
    'loop/new' "$long" "dir/$long" "$long/child"
    '%ff%fe/../../outside/secret'
)
for path in "${escapes[@]}"; do
    shown=$(shorten "$path")
    put "$path"
    refused "PUT $shown" '4[0-9][0-9]'
    ask POST "/_frag/upload/$path" --data-binary "uploaded"
    refused "POST $shown" '4[0-9][0-9]'
    ask GET "/_frag/files/$path"
    refused "GET $shown" '4[0-9][0-9]'
    if grep -Eq 'untouched|root:x:0' "$body"; then fail "GET $shown shows what is outside"; fi
    ask DELETE "/_frag/files/$path"
    refused "DELETE $shown" '4[0-9][0-9]'
done

# -- a link as the last part: reading it is refused; writing and deleting concern the link itself
for path in link-file dangling loop; do
    ask GET "/_frag/files/$path"
    refused "GET $path" '4[0-9][0-9]'
done
# -- a name, or an error: both will do
for path in link-file '%zz' '%2' '%' 'new%0aline' 'del%7f' '.hidden'; do
    put "$path"
    if [[ $status =~ ^20[01]$ ]]; then rows=$((rows + 1)); else refused "PUT $path" '4[0-9][0-9]'; fi
done

# -- not a place for a file
for path in '' '.' '/' 'dir' 'dir/' 'dir/.' 'real.txt/below' 'real.txt/'; do
    put "$path"
    refused "PUT '$path'" '4[0-9][0-9]'
done
if [ "$(cat dir/child real.txt)" != $'content\ncontent' ]; then fail "refused uploads changed what was there"; fi

# -- odd, and fine
for path in 'plain.txt' 'a/b/c/d.txt' 'with%20space' 'caf%C3%A9.txt' '...' '..a' 'a..b' '%7Etilde' 'semi;colon' 'plus+plus' '100%25'; do
    put "$path"
    rows=$((rows + 1))
    if ! [[ $status =~ ^20[01]$ ]]; then fail "PUT $path: $status $(head -c 200 "$body")"; continue; fi
    ask GET "/_frag/files/$path"
    if [ "$status $(cat "$body")" != "200 uploaded" ]; then fail "GET $path: $status $(head -c 200 "$body")"; fi
done
for name in 'with space' 'café.txt' 'plus+plus' '100%' 'a/b/c/d.txt'; do
    if [ ! -f "$name" ]; then fail "the upload did not make a file called '$name'"; fi
done

if [ "$(state)" != "$before" ]; then fail "something outside the root changed"; fi
if [ -e "/tmp/$marker" ]; then fail "/tmp/$marker was made"; rm -rf "/tmp/${marker:?}"; fi
if ! listening; then fail "the server is gone"; fi
end_server

# -- a root that cannot take it; needs mounts of our own
if [ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null; then
    mkdir "$folder/mounted"
    cd "$folder"
    in_mount() { # mount options, program…
        local options=$1
        shift
        exec unshare --mount sh -c 'mount -t tmpfs -o "$1" tmpfs mounted && cd mounted && shift && exec "$@"' sh "$options" "$@"
    }
    head -c 3000000 /dev/urandom >"$folder/three-megabytes"

    begin in_mount size=1m
    ask PUT /_frag/upload/big --data-binary "@$folder/three-megabytes"
    refused "PUT to a full file system" '(507|413|5[0-9][0-9])'
    ask GET /_frag/files/big
    refused "GET of what did not fit" '404'
    put small
    rows=$((rows + 1))
    if [ "$status" != 200 ]; then fail "PUT of what fits, afterwards: $status"; fi
    end_server

    begin in_mount ro
    put new
    refused "PUT to a read-only root" '[45][0-9][0-9]'
    ask DELETE /_frag/files/new
    refused "DELETE in a read-only root" '[45][0-9][0-9]'
    end_server
else
    echo "not tried, for lack of rights to mount: a full and a read-only root"
fi

echo "$rows rows, $failures failures"
((failures == 0))
