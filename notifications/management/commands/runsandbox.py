"""Runs the sandbox providers."""

import logging
import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from notifications import signatures
from notifications.sandbox import Callbacks, Sandbox


class Command(BaseCommand):
    """Run WhatsApp, SendGrid, SMS and SMTP servers that deliver to an inbox page."""

    help = "Run sandbox providers (WhatsApp, SendGrid, SMS, SMTP) with an inbox page."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the addresses."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8020, help="port of the HTTP server")
        parser.add_argument("--smtp-port", type=int, default=8025, help="port of the SMTP server")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # it logs every connection
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        journal = Path(settings.DATA_DIR) / "sandbox.jsonl"
        try:
            journal.parent.mkdir(parents=True, exist_ok=True)
            sandbox = Sandbox(
                host=options["host"],
                port=options["port"],
                smtp_port=options["smtp_port"],
                journal=journal,
                callbacks=_callbacks(),
            ).start()
        except OSError as error:
            raise CommandError(
                f"The sandbox cannot start on ports {options['port']} and "
                f"{options['smtp_port']}: {error}. Choose others by --port and --smtp-port."
            ) from error
        self.stdout.write(f"Inbox at {sandbox.url}/ and SMTP on port {sandbox.smtp_port}")
        self.stdout.flush()
        stop.wait()
        sandbox.stop()


def _callbacks() -> Callbacks:
    webhooks = reverse("notifications:sms").removesuffix("sms/")
    return Callbacks(
        url=settings.SITE_URL.rstrip("/") + webhooks,
        whatsapp_secret=signatures.whatsapp_secret(),
        sms_secret=signatures.sms_secret(),
        sendgrid_key=signatures.sandbox_sendgrid_key(),
    )
