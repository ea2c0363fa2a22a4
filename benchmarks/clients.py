"""Send requests of concurrent clients to a running app over HTTP, from a process of its own.

    python benchmarks/clients.py http://127.0.0.1:7860 predict requests.json --clients 32 --seconds 60

requests.json is a list of argument lists. Each client sends the next request as soon as it has received a response: a
`POST /gradio_api/call/NAME`, and then a `GET` of its event stream. Prints JSON: the seconds, and for every request its
number, its milliseconds and its answer (`refused` or `lost` with the reason if there is none).

It writes raw HTTP, because an HTTP library takes as much of the two cores as the server.
"""

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path
from urllib.parse import urlsplit


async def exchange(host: str, port: int, method: str, path: str, body: str = "") -> bytes:
    """Send one request on a new connection; return the response with its headers."""
    reader, writer = await asyncio.open_connection(host, port)
    content = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    try:
        return await reader.read()
    finally:
        writer.close()


async def call(host: str, port: int, name: str, arguments: list) -> object:
    """Call a named endpoint and return its answer.

    Returns {"refused": reason} if the app responds with an error, and None if it responds with nothing.
    """
    response = await exchange(host, port, "POST", f"/gradio_api/call/{name}", json.dumps({"data": arguments}))
    body = response[response.index(b"{") : response.rindex(b"}") + 1]
    event_id = json.loads(body).get("event_id")
    if not event_id:
        return None
    stream = await exchange(host, port, "GET", f"/gradio_api/call/{name}/{event_id}")
    lines = stream.decode().splitlines()
    for event, data in itertools.pairwise(lines):
        content = data.removeprefix("data: ")
        if event == "event: complete":
            return json.loads(content)[0]
        if event == "event: error":
            return {"refused": content}
    return None


async def run(url: str, name: str, requests: list[list], clients: int, seconds: float) -> dict:
    """Send requests for `seconds`, then wait for the responses to the last ones."""
    address = urlsplit(url)
    numbers = itertools.count()
    responses = []
    start = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - start < seconds:
            number = next(numbers) % len(requests)
            sent = time.perf_counter()
            try:
                answer = await call(address.hostname, address.port, name, requests[number])
            except (OSError, ValueError) as error:
                answer = {"lost": repr(error)}
            responses.append([number, 1000 * (time.perf_counter() - sent), answer])

    await asyncio.gather(*(client() for _ in range(clients)))
    return {"seconds": time.perf_counter() - start, "responses": responses}


def main() -> None:
    """Run the clients and print the responses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("name", help="of the endpoint")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    requests = json.loads(options.requests.read_text())
    found = asyncio.run(run(options.url, options.name, requests, options.clients, options.seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
