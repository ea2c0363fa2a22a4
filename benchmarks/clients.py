"""Concurrent clients of a running app over HTTP, as a process of its own.

    python benchmarks/clients.py http://127.0.0.1:7860 predict requests.json --clients 32 --seconds 60

requests.json is a list of argument lists; every client asks the next one as soon as it has its answer, each by
`POST /gradio_api/call/NAME` and the event stream that follows. Prints JSON: seconds, and for every request its
number, milliseconds and answer (`refused` or `lost` with the reason where there is none). Spoken in raw HTTP, since an HTTP library
takes as much of the two cores as the server.
"""

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path
from urllib.parse import urlsplit


async def exchange(host: str, port: int, method: str, path: str, body: str = "") -> bytes:
    """The whole reply to one request, headers and all, on a connection of its own."""
    reader, writer = await asyncio.open_connection(host, port)
    content = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    try:
        return await reader.read()
    finally:
        writer.close()


async def ask(host: str, port: int, name: str, arguments: list) -> object:
    """The answer of one call; {"refused": reason} where the app gave none, None where it gave nothing."""
    reply = await exchange(host, port, "POST", f"/gradio_api/call/{name}", json.dumps({"data": arguments}))
    event = json.loads(reply[reply.index(b"{") : reply.rindex(b"}") + 1]).get("event_id")
    if not event:
        return None
    stream = await exchange(host, port, "GET", f"/gradio_api/call/{name}/{event}")
    lines = stream.decode().splitlines()
    for kind, data in itertools.pairwise(lines):
        if kind == "event: complete":
            return json.loads(data.removeprefix("data: "))[0]
        if kind == "event: error":
            return {"refused": data.removeprefix("data: ")}
    return None


async def run(url: str, name: str, requests: list[list], clients: int, seconds: float) -> dict:
    """Ask for `seconds`, then wait for what is under way."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    number, asked = itertools.count(), []
    start = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - start < seconds:
            i = next(number) % len(requests)
            begun = time.perf_counter()
            try:
                answer = await ask(host, port, name, requests[i])
            except (OSError, ValueError) as error:
                answer = {"lost": repr(error)}
            asked.append([i, 1000 * (time.perf_counter() - begun), answer])

    await asyncio.gather(*(client() for _ in range(clients)))
    return {"seconds": time.perf_counter() - start, "asked": asked}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    found = run(options.url, options.name, json.loads(options.requests.read_text()), options.clients, options.seconds)
    print(json.dumps(asyncio.run(found)))
