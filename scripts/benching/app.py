#!/usr/bin/env python3
"""The backend for uploads and WebSockets, on 127.0.0.1 at the port it is given.

POST /…              reads the body and answers with its number of bytes
GET /… with Upgrade  answers each frame with the same frame, unmasked
GET /                "hello world"
"""

import base64
import hashlib
import re
import socket
import socketserver
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
READ_BYTES = 1 << 20


class Handler(socketserver.BaseRequestHandler):
    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def fill(self):
        data = self.request.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def head(self):
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self.fill()
        return self.take(end + 4)

    def handle(self):
        head = b""
        while not re.search(rb"(?i)\r\nconnection: *close\r\n", head):
            head = self.head()
            if key := re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", head):
                self.echo(key[1])
            else:
                self.answer(head)

    def answer(self, head):
        text = b"hello world\n"
        if head.startswith(b"POST "):
            length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
            text = b"%d" % self.discard(length)
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    def discard(self, length):
        got = min(length, len(self.buffer))
        del self.buffer[:got]
        room = memoryview(bytearray(READ_BYTES))
        while got < length:
            count = self.request.recv_into(room, min(READ_BYTES, length - got))
            if not count:
                raise EOFError
            got += count
        return got

    def echo(self, key):
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.request.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        while True:
            first, second = self.take(2)
            length = second & 0x7F
            # What the bench sends is short and masked.
            mask = self.take(4)
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(self.take(length)))
            self.request.sendall(bytes((first, length)) + payload)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (EOFError, ConnectionError)):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
