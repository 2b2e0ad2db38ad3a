"""A server before the emulator of gs://: counts requests, makes them fail, holds preconditions.

The emulator looks at the preconditions of uploads only; those of copies and deletes are held here.
"""

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gcs.plans import Kind, Plan, kind_of

STALL_SECONDS = 4.0
CONTROL = "/_control"

_DROPPED = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class Server(ThreadingHTTPServer):
    """Counts requests by kind, and those that were made to fail by fault."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, emulator: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.emulator = emulator
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.writing = threading.RLock()
        self.looking = threading.Lock()
        self.free = threading.Event()
        self.page_size: int | None = None
        self.hold: list[str] = []
        self.forget()

    def forget(self) -> None:
        """Count anew, and let everything succeed."""
        self.plan, self.reached = Plan(), False
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.connections, self.delay = 0, 0.0

    def told(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Do what a test asks for; what happened so far."""
        if wish.get("forget"):
            self.forget()
        if "plan" in wish:
            self.plan = Plan(**wish["plan"])
        self.page_size = wish.get("page_size", self.page_size)
        self.delay = wish.get("delay", self.delay)
        if "hold" in wish:
            self.hold, self.reached = wish["hold"], False
            (self.free.clear if self.hold else self.free.set)()
        return {
            "requests": self.requests,
            "failed": self.failed,
            "log": self.log,
            "connections": self.connections,
            "reached": self.reached,
        }

    def wait(self, kind: Kind, name: str, body: bytes) -> None:
        """Wait if this is to be held; the name of a new object is in its upload's body."""
        text = name + body[:2000].decode(errors="replace")
        if kind == "write" and self.hold and all(part in text for part in self.hold):
            self.reached = True
            self.free.wait(60)

    def process_request(self, *connection: Any) -> None:
        """Count connections."""
        self.connections += 1
        super().process_request(*connection)

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 30
    wbufsize = -1  # an answer is sent as one, or its second half waits for an acknowledgement
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self._body()
        if self.path == CONTROL:
            self._answer(Answer(200, {}, json.dumps(self.server.told(json.loads(body))).encode()))
            return
        kind, name = kind_of(self.command, self.path), unquote(self.path)
        with self.server.looking:
            self.server.requests[kind] += 1
            self.server.log.append((kind, name))
            fault = self.server.plan.of(kind, name)
            if fault:
                self.server.failed[fault] += 1
        if fault in {"429", "503"}:
            self._answer(Answer(int(fault), {}, b'{"error": {"message": "made to fail"}}'))
            return
        time.sleep(self.server.delay)
        self.server.wait(kind, name, body)
        answer = self._carried_out(kind, body)
        if fault == "stall":
            time.sleep(STALL_SECONDS)
        if fault in {"lost", "stall"}:
            self._end()
        elif fault == "cut" and len(answer.body) > 1:
            self._answer(answer, len(answer.body) // 2)
            self._end()
        else:
            self._answer(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _carried_out(self, kind: Kind, body: bytes) -> Answer:
        if kind not in {"write", "copy", "delete"}:
            return self._asked(self.command, self._paged(kind), body)
        with self.server.writing:
            if kind != "write" and not self._holds():
                return Answer(412, {}, b'{"error": {"code": 412, "message": "precondition"}}')
            return self._asked(self.command, self.path, body)

    def _paged(self, kind: Kind) -> str:
        size = self.server.page_size
        return f"{self.path}&maxResults={size}" if kind == "list" and size else self.path

    def _holds(self) -> bool:
        """Whether the object that is copied to, or deleted, is of the generation asked for."""
        wanted = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch")
        if wanted is None:
            return True
        path = urlsplit(self.path).path
        if "/rewriteTo/" in path:
            path = "/storage/v1" + path.partition("/rewriteTo")[2]
        there = self._asked("GET", path, b"")
        generation = json.loads(there.body)["generation"] if there.status == 200 else "0"
        return str(generation) == wanted[0]

    def _asked(self, method: str, target: str, body: bytes) -> Answer:
        connection = HTTPConnection(self.server.emulator, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _DROPPED}
        headers["Host"] = self.server.emulator
        connection.request(method, target, body, headers)
        found = connection.getresponse()
        content = found.read()
        kept = {k: v for k, v in found.getheaders() if k.lower() not in _DROPPED}
        connection.close()
        for name, value in kept.items():  # where a large upload goes on
            kept[name] = value.replace(self.server.emulator, self.server.address)
        return Answer(found.status, kept, content)

    def _answer(self, answer: Answer, most: int | None = None) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:most])

    def _end(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(emulator: str) -> None:
    """Serve until the standard input ends; a process of its own, as pyarrow may keep the GIL."""
    server = Server(emulator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
