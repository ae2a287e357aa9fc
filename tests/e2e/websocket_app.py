"""A wrapped WebSocket server on PORT, for websockets.py. Run with `python -I`: its neighbour there has
the name of the library.

/echo          sends every message back; `close CODE REASON` closes so
/chat          the same, with the subprotocol `chat`
/refuse        403
GET /closed    the code and reason clients closed with last, as text
GET /          a short text
"""

import asyncio
import http
import os

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

LONGEST = 8 << 20
closed = "none"


def answer(connection, request):
    if "upgrade" in request.headers.get("connection", "").lower():
        return connection.respond(http.HTTPStatus.FORBIDDEN, "no\n") if request.path == "/refuse" else None
    return connection.respond(http.HTTPStatus.OK, closed if request.path == "/closed" else "hello\n")


def choose(_, offered):
    return "chat" if "chat" in offered else None


async def echo(connection):
    global closed
    try:
        async for message in connection:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await connection.close(int(code), reason)
                return
            await connection.send(message)
    except ConnectionClosed:
        pass
    await connection.wait_closed()
    closed = f"{connection.close_code} {connection.close_reason}"


async def main():
    options = {"max_size": LONGEST, "compression": None, "ping_interval": None, "backlog": 1024}
    options |= {"process_request": answer, "select_subprotocol": choose}
    async with serve(echo, "127.0.0.1", int(os.environ["PORT"]), **options):
        await asyncio.Future()


asyncio.run(main())
