"""The sandbox's SMTP server."""

import asyncio
import email
import email.policy

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from .faults import Fault, Faults
from .mailbox import Mailbox

SLOW_SECONDS = 12


class Handler:
    """Takes mail into the mailbox."""

    def __init__(self, box: Mailbox, faults: Faults) -> None:
        self._box = box
        self._faults = faults

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept or refuse one recipient."""
        fault = self._faults.strike("smtp", address)
        if fault is Fault.BAD_RECIPIENT:
            return "550 5.1.1 No such mailbox"
        if fault in (Fault.OUTAGE, Fault.THROTTLED):
            return "451 4.3.2 System not accepting messages now"
        if fault is Fault.SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if fault in (Fault.LOST_ANSWER, Fault.LOST_REQUEST):
            session.lost = fault  # type: ignore[attr-defined]  # a note to handle_DATA
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take the message."""
        lost = getattr(session, "lost", None)
        if lost is Fault.LOST_REQUEST:
            return self._break_off(server)
        raw = envelope.content
        content = raw.encode() if isinstance(raw, str) else raw or b""
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        text = parsed.get_body(preferencelist=("plain", "html"))
        for recipient in envelope.rcpt_tos:
            self._box.add(
                message_id=str(parsed["Message-ID"] or ""),
                channel="email",
                provider="smtp",
                recipient=str(recipient),
                subject=str(parsed["Subject"] or ""),
                text=text.get_content() if text is not None else "",
                attachments=[str(part.get_filename()) for part in parsed.iter_attachments()],
            )
        return self._break_off(server) if lost else "250 Message taken"

    def _break_off(self, server: SMTP) -> str:
        if isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()
        return "421 Nobody reads this"


class Server(Controller):
    """An SMTP server in a thread of its own; port 0 takes a free one."""

    def _trigger_server(self) -> None:
        # The base class connects to the port it was given, which is not known for 0.
        if self.server is not None:
            self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        super()._trigger_server()  # type: ignore[no-untyped-call]
