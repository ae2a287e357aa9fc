#!/usr/bin/env python3
"""Prints what a worker does, as it does it: observe.py WORKER_ID [CURSOR].

The address comes from FRAG_URL (ws://localhost:8080/_frag), the token from FRAG_TOKEN. Comes back
with the last cursor when the connection breaks, so that nothing is missed and nothing comes twice.
"""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = os.environ.get("FRAG_URL", "ws://localhost:8080/_frag")


async def observe(worker, cursor):
    headers = {"Authorization": f"Bearer {os.environ['FRAG_TOKEN']}"}
    while True:
        place = f"?cursor={cursor}" if cursor else ""
        url = f"{URL}/v1/workers/{worker}/events/ws{place}"
        try:
            async with connect(url, additional_headers=headers) as socket:
                async for message in socket:
                    frame = json.loads(message)
                    if frame["kind"] == "diagnostic":
                        sys.exit(frame["diagnostic"]["message"])
                    cursor = frame["envelope"]["cursor"]
                    print(cursor, json.dumps(frame["envelope"]["payload"]), flush=True)
                    if frame["envelope"]["payload"]["event"] == "shutdown":
                        return
        except (ConnectionClosed, OSError):
            await asyncio.sleep(1)


asyncio.run(observe(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
