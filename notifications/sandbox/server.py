"""The sandbox's HTTP server, and the two servers as one object."""

import json
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from . import page, providers
from .callbacks import Callbacks
from .faults import Fault, Faults
from .mailbox import Mailbox, Message
from .smtp import SLOW_SECONDS, Handler, Server

MAX_BODY = 1_000_000
CSS = (Path(__file__).parent / "inbox.css").read_bytes()
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Sandbox:
    """Providers for the demo and the tests.

    Args:
        host: address to listen on.
        port: HTTP port; 0 takes a free one.
        smtp_port: SMTP port; 0 takes a free one.
        journal: file that keeps the messages, as JSON lines.
        slow_seconds: how long a slow recipient's answer takes.
        callbacks: calls the site's webhooks; None leaves them out.

    Raises:
        OSError: a port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        smtp_port: int = 0,
        journal: Path | None = None,
        slow_seconds: float = SLOW_SECONDS,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.mailbox = Mailbox(journal)
        self.callbacks = callbacks
        if callbacks is not None:
            self.mailbox.on_message = callbacks.report_later
        self.faults = Faults()
        self.stopping = threading.Event()
        self.slow_seconds = slow_seconds
        self._http = _HttpServer((host, port), self)
        self._smtp = Server(Handler(self.mailbox, self.faults), hostname=host, port=smtp_port)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="sandbox-http", daemon=True
        )

    def start(self) -> "Sandbox":
        """Start both servers; they answer when this returns."""
        try:
            self._smtp.start()
        except BaseException:
            self._http.server_close()
            raise
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop both servers."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._smtp.stop(no_assert=True)

    def __enter__(self) -> "Sandbox":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the HTTP server, without a slash at the end."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def smtp_port(self) -> int:
        """Port of the SMTP server."""
        return int(self._smtp.port)

    @property
    def messages(self) -> list[Message]:
        """The messages taken, newest last."""
        return self.mailbox.all()

    def fail(
        self,
        channel: str | None = None,
        recipient: str | None = None,
        *,
        fault: Fault | str | None = Fault.OUTAGE,
        times: int | None = None,
    ) -> None:
        """Order a fault, or lift it with None; see `Faults.set`."""
        chosen = None if fault is None else Fault(fault)
        self.faults.set(chosen, channel=channel, recipient=recipient, times=times)

    def reset(self) -> None:
        """Forget messages and orders, between tests."""
        self.mailbox.clear()
        self.faults.clear()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        super().__init__(address, _Requests)


class _Requests(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        sandbox, parts = self.server.sandbox, urlsplit(self.path)
        match parts.path:
            case "/":
                channel = parse_qs(parts.query).get("channel", [""])[0]
                html = page.render(sandbox.messages, channel, sandbox.faults.orders())
                self._send(200, html.encode(errors="replace"), "text/html; charset=utf-8")
            case "/inbox.json":
                self._json(200, {"messages": [asdict(item) for item in sandbox.messages]})
            case "/inbox.css":
                self._send(200, CSS, "text/css; charset=utf-8")
            case "/health":
                self._json(200, {"status": "ok"})
            case _:
                self._json(404, {"error": "There is no such page."})

    def do_POST(self) -> None:
        try:
            data = self._read()
        except ValueError as error:
            self._json(400, {"error": str(error)})
            return
        path = urlsplit(self.path).path
        if path == "/faults":
            self._order(data)
        elif path == "/write":
            self._write(data)
        elif provider := providers.route(path):
            authorised = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            sandbox = self.server.sandbox
            self._answer(provider(data, bool(authorised), sandbox.mailbox, sandbox.faults))
        else:
            self._json(404, {"error": "There is no such address."})

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Stay silent: the journal is the log."""

    def _read(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length", "0"))
        if not 0 < length <= MAX_BODY:
            self.close_connection = True
            raise ValueError(f"The body must have 1 to {MAX_BODY} bytes.")
        raw = self.rfile.read(length)
        # A page on another site cannot send this type without asking first, and is refused.
        if self.headers.get_content_type() != "application/json":
            raise ValueError("The content type must be application/json.")
        data = json.loads(raw)
        if not isinstance(data, dict):
            raise ValueError("The body must be a JSON object.")
        return data

    def _order(self, data: dict[str, Any]) -> None:
        names = ("channel", "recipient", "fault")
        if any(not isinstance(data.get(name), str | None) for name in names):
            self._json(400, {"error": "channel, recipient and fault are texts or null."})
            return
        times = data.get("times")
        if times is not None and (type(times) is not int or times < 1):
            self._json(400, {"error": "times is 1 or more, or null."})
            return
        try:
            self.server.sandbox.fail(
                data.get("channel"), data.get("recipient"), fault=data.get("fault"), times=times
            )
        except ValueError:
            known = ", ".join(Fault)
            self._json(400, {"error": f"There is no such fault; known: {known}."})
            return
        self._json(200, {"faults": self.server.sandbox.faults.orders()})

    def _write(self, data: dict[str, Any]) -> None:
        sender, text = data.get("from"), data.get("text")
        callbacks = self.server.sandbox.callbacks
        if not isinstance(sender, str) or not isinstance(text, str) or callbacks is None:
            self._json(400, {"error": "from and text are texts, and the site must be known."})
            return
        self.server.sandbox.mailbox.hear(sender)
        callbacks.write(sender, text)
        self._json(200, {"written": True})

    def _answer(self, answer: providers.Answer) -> None:
        if answer.fault is Fault.SLOW:
            self.server.sandbox.stopping.wait(self.server.sandbox.slow_seconds)
        if answer.fault in (Fault.LOST_ANSWER, Fault.LOST_REQUEST):
            self.close_connection = True
            return
        if answer.body is None:
            self._send(answer.status, b"", "application/json", answer.headers)
        else:
            self._json(answer.status, answer.body, answer.headers)

    def _json(self, status: int, data: dict[str, Any], extra: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(data).encode(), "application/json", extra)

    def _send(
        self, status: int, content: bytes, kind: str, extra: dict[str, str] | None = None
    ) -> None:
        try:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(len(content))}
            for name, value in (headers | SECURITY | (extra or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has given up, as with a slow answer
