#!/usr/bin/env python3
"""The command-line client with real programs around it.

GNU tar piped into curl; 100 MB of a program's output through `exec` with flat memory on both sides;
https against Python's server, trusted and not, in a build with the feature `tls`; and `sync --watch` on a
Streamlit app that somebody looks at in headless Chromium, with the time from a save to the new text.

What the browser needs is what browser.py needs, from the same cache. Without it that part is skipped, and
so is the whole script if nothing else could run either.
"""

import contextlib
import hashlib
import http.server
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time

import browser
import frag

TOKEN = "correct-horse"
OUTPUT_BYTES = 100_000_000
MEMORY_KIB = 24 * 1024
SAVES = 3 if frag.SMALL_SCALE else 10


def ctl(server, *words, **more):
    """Runs `ctl` against the server to its end."""
    environment = dict(os.environ, FRAG_URL=f"http://{frag.LOOPBACK}:{server.port}", FRAG_TOKEN=TOKEN)
    argv = [os.environ["FRAG_BIN"], "ctl", *map(str, words)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False, **more)


def expect(ran, code, *parts):
    if ran.returncode != code or any(part not in ran.stdout + ran.stderr for part in parts):
        raise SystemExit(f"{ran.args}: {ran.returncode}, not {code}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return ran.stdout


def digests(folder):
    """{path: (mode, sha256)} of the files below a folder."""
    found = {}
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            found[str(path.relative_to(folder))] = (path.stat().st_mode & 0o777, hashlib.sha256(path.read_bytes()).digest())
    return found


def make_tree(folder, count):
    for number in range(count):
        path = pathlib.Path(folder, f"d{number % 13}", f"{'long' * 30}-{number}" if number % 50 == 0 else f"f{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 4000))
        path.chmod(0o755 if number % 3 else 0o640)


def test_tar(server):
    for program in ("tar", "curl"):
        if shutil.which(program) is None:
            return print(f"tar: skipped, no {program}")
    with tempfile.TemporaryDirectory() as folder:
        make_tree(folder, 1500)
        wanted = digests(folder)
        for number, form in enumerate(("gnu", "pax", "ustar", "v7")):
            url = f"http://{frag.LOOPBACK}:{server.port}/_frag/upload/{form}?archive=tar"
            # With a length, and in chunks.
            body = ["--data-binary", "@-"] if number % 2 else ["--upload-file", "-"]
            curl = ["curl", "-sS", "-H", f"Authorization: Bearer {TOKEN}", *body, url]
            # The old forms have no room for a name of more than 100 bytes.
            has_room = form in ("gnu", "pax")
            excluded = [] if has_room else ["--exclude=longlong*"]
            began = time.monotonic()
            tar = subprocess.Popen(["tar", "-c", f"--format={form}", *excluded, "-C", folder, "."], stdout=subprocess.PIPE)
            answer = subprocess.run(curl, stdin=tar.stdout, capture_output=True, text=True, check=True).stdout
            assert tar.wait() == 0
            got = digests(server.root / form)
            assert got == {path: what for path, what in wanted.items() if has_room or "longlong" not in path}, answer
            print(f"tar --format={form} | curl: {len(got)} files in {time.monotonic() - began:.2f} s, all equal")
        # A link is named, and nothing appears.
        pathlib.Path(folder, "link").symlink_to("/etc/passwd")
        made = subprocess.run(["tar", "-cC", folder, "."], capture_output=True, check=True).stdout
        status, body = server.request("POST", "/_frag/upload/refused?archive=tar", made, {"Authorization": f"Bearer {TOKEN}"})
        assert status == 400 and b"./link" in body and not (server.root / "refused").exists(), body
        # And what upload and sync make of the same folder.
        expect(ctl(server, "upload", folder, "--to", "up"), 0, "1500 files", "left out")
        assert digests(next((server.root / "up").iterdir())) == wanted
        began = time.monotonic()
        expect(ctl(server, "sync", folder, "--to", "same"), 0, "1500 files")
        first = time.monotonic() - began
        assert digests(server.root / "same") == wanted
        began = time.monotonic()
        assert expect(ctl(server, "sync", folder, "--to", "same"), 0) == ""
        print(f"sync of 1500 files: {first:.2f} s, and {time.monotonic() - began:.2f} s when nothing differs")


def highest_kib(process):
    text = pathlib.Path("/proc", str(process.pid), "status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))


def test_exec(server):
    environment = dict(os.environ, FRAG_URL=f"http://{frag.LOOPBACK}:{server.port}", FRAG_TOKEN=TOKEN)
    script = f"yes 'a line of the output' | head -c {OUTPUT_BYTES}; sleep 0.2; exit 9"
    argv = [os.environ["FRAG_BIN"], "ctl", "exec", "--", "sh", "-c", script]
    began = time.monotonic()
    with frag.MemoryWatch(server) as watch:
        client = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        count, highest = 0, 0
        while piece := client.stdout.read(1 << 20):
            count += len(piece)
            with contextlib.suppress(OSError, StopIteration):
                highest = max(highest, highest_kib(client))
        assert client.wait() == 9
    seconds = time.monotonic() - began
    # The end of the last line is added.
    assert count in (OUTPUT_BYTES, OUTPUT_BYTES + 1), count
    print(f"exec: {count / 1e6:.0f} MB in {seconds:.1f} s, client {highest} KiB, server {watch.highest_kib} KiB at most")
    assert highest < MEMORY_KIB and watch.highest_kib < MEMORY_KIB


class Status(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"status":"ready","restarts":0,"command":"over https"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_https():
    probe = [os.environ["FRAG_BIN"], "ctl", "--url", "https://127.0.0.1:1", "status"]
    if "feature" in subprocess.run(probe, capture_output=True, text=True, check=False).stderr:
        return print("https: skipped, a build without the feature tls")
    if shutil.which("openssl") is None:
        return print("https: skipped, no openssl")
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key", f"{folder}/certificate"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
        make += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
        subprocess.run(make, check=True, capture_output=True)
        server = http.server.ThreadingHTTPServer((frag.LOOPBACK, 0), Status)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        argv = [os.environ["FRAG_BIN"], "ctl", "--url", f"https://{frag.LOOPBACK}:{server.server_port}", "status"]
        run = lambda *more: subprocess.run([*argv, *more], capture_output=True, text=True, check=False)
        expect(run(), 3, "certificate")
        expect(run("--ca-file", certificate), 0, "ready, restarts 0: over https")
        expect(run("--ca-file", key), 2, "there is no certificate in it")
        server.shutdown()
    print("https: a certificate nobody vouches for is refused, one from --ca-file is not")


def test_streamlit():
    chromium = browser.find_chromium()
    if chromium is None or not all(map(shutil.which, ("node", "npm"))):
        return print("sync --watch: skipped, no browser")
    modules = browser.install_node_modules() / "node_modules"
    streamlit = browser.install_streamlit()
    command = (
        f"sh -c 'exec {streamlit} run app.py --server.port $PORT --server.address 127.0.0.1"
        " --server.headless true --server.runOnSave true --browser.gatherUsageStats false'"
    )
    with tempfile.TemporaryDirectory() as here, frag.Server(command) as server:
        source = (browser.EXAMPLES / "streamlit" / "app.py").read_text()
        app = pathlib.Path(here, "app.py")
        app.write_text(source)
        environment = dict(os.environ, FRAG_URL=f"http://{frag.LOOPBACK}:{server.port}")
        argv = [os.environ["FRAG_BIN"], "ctl", "sync", "--watch", here]
        client = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            while "watching" not in client.stderr.readline():
                assert client.poll() is None
            server.wait_ready()
            # Alone: from the end of the save to the file on the server.
            times = []
            for number in range(SAVES):
                target = server.root / "other.txt"
                pathlib.Path(here, "other.txt").write_text(str(number))
                began = time.monotonic()
                frag.wait_for(lambda: target.exists() and target.read_text() == str(number), 10, "the file")
                times.append((time.monotonic() - began) * 1000)
            times.sort()
            print(f"save to file there: median {times[len(times) // 2]:.0f} ms, longest {times[-1]:.0f} ms of {SAVES}")
            more = dict(os.environ, CHROMIUM=chromium, NODE_MODULES=str(modules), APP=str(app), SAVES=str(SAVES))
            base = f"http://{frag.LOOPBACK}:{server.port}"
            ran = subprocess.run(["node", frag.HERE / "ctl.mjs", base], env=more, check=False)
            if ran.returncode != 0:
                raise SystemExit(f"ctl.mjs: exit code {ran.returncode}")
        finally:
            client.send_signal(signal.SIGINT)
            client.wait()


def main():
    flags = ["--exec", "any", "--exec-max-output", "1GiB"]
    with frag.Server("sleep 1000", *flags, environment={"FRAG_TOKEN": TOKEN}) as server:
        test_tar(server)
        test_exec(server)
    test_https()
    test_streamlit()


if __name__ == "__main__":
    main()
