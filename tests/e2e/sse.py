#!/usr/bin/env python3
"""Server-sent events of an app arrive one by one, each at once, and whoever leaves is let go.

The app sends ten events a second, each with the time it was sent; the clients, on the same clock, see
how late each one is.
"""

import http.server
import pathlib
import statistics
import sys
import threading
import time

import frag

EVENTS = 30 if frag.SMALL_SCALE else 100
CLIENTS = 10
PAUSE_SECONDS = 0.1
LATE_SECONDS = 0.050
LEAVING_SECONDS = 1.0


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    streams = 0

    def do_GET(self):
        if self.path == "/streams":
            body = str(App.streams).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        App.streams += 1
        try:
            while True:
                self.wfile.write(f"data: {time.monotonic()}\n\n".encode())
                time.sleep(PAUSE_SECONDS)
        except OSError:
            pass
        finally:
            App.streams -= 1
            self.close_connection = True

    def log_message(self, *_):
        pass


def listen(server, late):
    """Takes the events of one stream; how late each one was."""
    connection = server.connect()
    connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    for _ in range(EVENTS):
        line = answer.readline()
        now = time.monotonic()
        assert answer.readline() == b"\n", "one event at a time"
        late.append(now - float(line.removeprefix(b"data: ")))
    connection.sock.close()
    answer.close()
    connection.close()


def main():
    with frag.Server(f"{sys.executable} {pathlib.Path(__file__).resolve()} app") as server:
        late = []
        threads = [threading.Thread(target=listen, args=(server, late)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(late) == CLIENTS * EVENTS, len(late)
        late.sort()
        share = late[int(len(late) * 0.99)]
        print(f"{len(late)} events to {CLIENTS} clients: median {statistics.median(late) * 1000:.1f} ms late, "
              f"99 % {share * 1000:.1f}, latest {late[-1] * 1000:.1f}")
        assert share < LATE_SECONDS, "too late"

        def streams():
            connection = server.connect()
            connection.request("GET", "/streams")
            return int(connection.getresponse().read())

        began = time.monotonic()
        frag.wait_for(lambda: streams() == 0, 5, "the app's streams end when their clients have left")
        took = time.monotonic() - began
        print(f"all streams let go {took:.2f} s after the last client left")
        assert took < LEAVING_SECONDS, "too long"


if __name__ == "__main__":
    if sys.argv[1:] == ["app"]:
        import os
        http.server.ThreadingHTTPServer((frag.LOOPBACK, int(os.environ["PORT"])), App).serve_forever()
    else:
        main()
