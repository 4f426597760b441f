"""A receiver of webhooks, as an operator would write one."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

SECRET = b"of the receiver"


class Receiver:
    """Takes webhooks while it is open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.got: list[dict[str, Any]] = []
        self._server: HTTPServer | None = None

    def open(self) -> None:
        """On 127.0.0.1 of the namespace that this is called in."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
                assert self.headers["X-Mpq-Signature"] == f"sha256={signature}"
                receiver.got.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = HTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """May be opened again."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
