"""A wrapped server of every kind of traffic at once, on PORT: what crowd_app.py knows, and

GET  /events       server-sent events, one every 50 ms, without end
GET  /echo         a WebSocket whose bytes come back as they are

It starts and ends quickly, for restarts.
"""

import asyncio
import base64
import hashlib
import os
import signal

import crowd_app

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
EVENT_SECONDS = 0.05


async def events(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    number = 0
    while True:
        writer.write(b"id: %d\ndata: tick\n\n" % number)
        await writer.drain()
        await asyncio.sleep(EVENT_SECONDS)
        number += 1


async def echo(reader, writer, key):
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
    writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def other(path, fields, reader, writer):
    """What crowd_app does not know; whether it was that."""
    if path == b"/events":
        await events(writer)
    elif path == b"/echo":
        await echo(reader, writer, fields[b"sec-websocket-key"])
    else:
        return False
    return True


crowd_app.other = other
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
asyncio.run(crowd_app.main())
