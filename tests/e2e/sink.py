"""A wrapped server for large bodies, on PORT: hashes what it gets, sends as many bytes as asked.

POST /…               {"bytes", "sha256", "chunked"} of the body
GET  /bytes/N         N known bytes with a Content-Length
GET  /chunked/N       the same, chunked
GET  /                a short text
"""

import hashlib
import http.server
import json
import os
import random

BLOCK = random.Random(1).randbytes(1 << 20)
READ_BYTES = 1 << 18


def blocks(total):
    """The known content: one block over and over, cut at `total` bytes."""
    for start in range(0, total, len(BLOCK)):
        yield BLOCK[: min(len(BLOCK), total - start)]


def sha256(total):
    digest = hashlib.sha256()
    for block in blocks(total):
        digest.update(block)
    return digest.hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self.exactly(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            yield from self.exactly(int(self.headers.get("Content-Length", 0)))

    def exactly(self, size):
        while size:
            data = self.rfile.read(min(size, READ_BYTES))
            if not data:
                raise ConnectionError("the body ended early")
            size -= len(data)
            yield data

    def do_POST(self):
        digest, total = hashlib.sha256(), 0
        for data in self.body():
            digest.update(data)
            total += len(data)
        chunked = "Transfer-Encoding" in self.headers
        self.answer(json.dumps({"bytes": total, "sha256": digest.hexdigest(), "chunked": chunked}).encode())

    def do_GET(self):
        kind, _, total = self.path.strip("/").partition("/")
        if kind not in ("bytes", "chunked"):
            return self.answer(b"sink\n")
        self.send_response(200)
        if kind == "bytes":
            self.send_header("Content-Length", total)
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for block in blocks(int(total)):
            self.wfile.write(block if kind == "bytes" else b"%x\r\n%b\r\n" % (len(block), block))
        if kind == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
