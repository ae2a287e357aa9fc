"""A wrapped server that carries thousands of connections at once, on PORT: one loop, no threads.

GET  /             a short text
GET  /bytes/N      N bytes with a Content-Length
GET  /never        is never answered
POST /…            the number of bytes of its body, with a length or chunked
"""

import asyncio
import os

BLOCK = b"x" * 65536
HEAD_BYTES = 1 << 20


async def body(reader, fields):
    """Reads a request's body; how long it was."""
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        total = 0
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
            total += size
        while (await reader.readline()).strip():
            pass
        return total
    left = total = int(fields.get(b"content-length", 0))
    while left:
        piece = await reader.read(min(left, len(BLOCK)))
        if not piece:
            raise ConnectionError
        left -= len(piece)
    return total


async def other(path, fields, reader, writer):
    """For an app that knows more: whether it took the request."""
    return False


async def answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    method, path, _ = line.split(b" ")
    text = b"%d\n" % await body(reader, fields) if method == b"POST" else b"crowd\n"
    if path == b"/never":
        return await reader.read()
    if await other(path, fields, reader, writer):
        raise ConnectionError("the connection is used up")
    length = int(path[7:]) if path.startswith(b"/bytes/") else len(text)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    if not path.startswith(b"/bytes/"):
        writer.write(text)
    else:
        for start in range(0, length, len(BLOCK)):
            writer.write(BLOCK[: length - start])
            await writer.drain()
    await writer.drain()
    return None


async def serve(reader, writer):
    try:
        while True:
            await answer(reader, writer)
            if reader.at_eof():
                break
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
        pass
    writer.transport.abort()


async def main():
    port = int(os.environ["PORT"])
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=HEAD_BYTES, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
