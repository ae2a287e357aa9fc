"""Hostile clients, many at once, from one loop: `abuser.py KIND PORT COUNT SECONDS`.

Each kind is a coroutine that is one client; when it ends before the time is over, another takes its
place. Prints `ready` when all have begun, and how many there were in the end.
"""

import asyncio
import itertools
import resource
import socket
import struct
import sys

HOST = "127.0.0.1"
ENDLESS = b"x" * 4096
LARGEST_HEAD = 64 * 1024


async def connect(port, receive_bytes=None):
    raw = socket.socket()
    raw.setblocking(False)
    if receive_bytes:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(raw, (HOST, port))
    # A small limit: what the client does not read is to stay in the kernel.
    return await asyncio.open_connection(sock=raw, limit=1)


def get(path, *fields, method="GET"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


async def until_closed(reader):
    while await reader.read(65536):
        pass


async def send_for_ever(writer, head, piece, count=1 << 30):
    """Sends until the other end has had enough."""
    writer.write(head)
    for _ in range(count):
        writer.write(piece)
        await writer.drain()


async def idle(port):
    reader, writer = await connect(port)
    writer.write(get("/"))
    await until_closed(reader)
    writer.close()


async def silent(port):
    reader, writer = await connect(port)
    await until_closed(reader)
    writer.close()


async def reset(port):
    _, writer = await connect(port)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def never_reads(port):
    reader, writer = await connect(port, receive_bytes=4096)
    writer.transport.pause_reading()
    writer.write(get("/bytes/10000000"))
    await asyncio.sleep(1e9)
    writer.close()
    return reader


async def reads_a_byte(port):
    raw = socket.socket()
    raw.setblocking(False)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (HOST, port))
    with raw:
        await loop.sock_sendall(raw, get("/bytes/1000000"))
        while await loop.sock_recv(raw, 1):
            await asyncio.sleep(1)


async def sends_a_byte(port, path="/"):
    reader, writer = await connect(port)
    writer.write(get(path, "Content-Length: 1000000", method="POST"))
    while not reader.at_eof():
        writer.write(b"x")
        await writer.drain()
        try:
            await asyncio.wait_for(until_closed(reader), 1)
            break
        except TimeoutError:
            pass
    writer.close()


async def uploads_a_byte(port):
    await sends_a_byte(port, "/_frag/upload/slow")


async def never_answered(port):
    reader, writer = await connect(port)
    writer.write(get("/never"))
    await until_closed(reader)
    writer.close()


async def large_heads(port):
    """As large as may be, and complete; the request then waits for the app."""
    reader, writer = await connect(port)
    writer.write(get("/never", "X: " + "x" * (LARGEST_HEAD - 60)))
    await until_closed(reader)
    writer.close()


async def large_head(port):
    reader, writer = await connect(port)
    await send_for_ever(writer, b"GET / HTTP/1.1\r\nX: ", ENDLESS, 256)
    await until_closed(reader)


async def many_fields(port):
    reader, writer = await connect(port)
    writer.write(get("/", *("A: b" for _ in range(10_000))))
    await until_closed(reader)


async def endless_extension(port):
    _, writer = await connect(port)
    await send_for_ever(writer, get("/", "Transfer-Encoding: chunked", method="POST") + b"1;", ENDLESS)


async def endless_trailers(port):
    _, writer = await connect(port)
    head = get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n0\r\n"
    await send_for_ever(writer, head, b"A: b\r\n" * 500)


async def enormous_length(port):
    reader, writer = await connect(port)
    writer.write(get("/_frag/upload/big", "Content-Length: 99999999999", method="POST") + b"x")
    await until_closed(reader)
    writer.close()


async def one_after_another(client, port, tally):
    while True:
        tally[0] += 1
        try:
            await client(port)
        except OSError:
            pass
        # A client that is refused at once comes back soon, not at once.
        await asyncio.sleep(0.05)


async def main(kind, port, count, seconds):
    tally, most = [0], resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tasks = []
    for client in itertools.repeat(globals()[kind], count):
        tasks.append(asyncio.create_task(one_after_another(client, port, tally)))
        if len(tasks) % 100 == 0:
            await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.sleep(seconds)
    print(tally[0], flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
