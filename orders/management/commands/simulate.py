"""Keeps the demo business busy."""

import logging
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orders.models import Product, Retailer
from orders.simulation import SandboxAway, Simulation


class Command(BaseCommand):
    help = "Let shops order and pay, vendors answer and providers fail, until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--rate", type=float, default=0.4,
            help="orders per second; more than 0.4 meet the limit of 100 a minute of "
            "order-processing, whose jobs then wait",
        )  # fmt: skip
        parser.add_argument(
            "--failures", type=float, default=0.05, help="share of provider calls that fail, 0 to 1"
        )
        parser.add_argument("--seconds", type=float, help="stop after this long")

    def handle(self, *args: Any, **options: Any) -> None:
        self._require(options)
        if options["verbosity"] < 2:
            # What the jobs do is in the console; here it would drown the one line a second.
            with _quiet():
                self._simulate(options)
        else:
            self._simulate(options)

    def _simulate(self, options: dict[str, Any]) -> None:
        simulation = Simulation(options["failures"], settings.SANDBOX_URL)
        end = time.monotonic() + options["seconds"] if options["seconds"] else None
        due = 0.0
        try:
            while end is None or time.monotonic() < end:
                due += options["rate"]
                orders, due = int(due), due % 1
                began = time.monotonic()
                simulation.step(orders)
                done = ", ".join(f"{count} {what}" for what, count in simulation.did.items())
                self.stdout.write(done or "nothing yet")
                self.stdout.flush()
                time.sleep(max(0.0, began + 1 - time.monotonic()))  # a step a second
        except KeyboardInterrupt:
            self.stdout.write("stopped.")
        except SandboxAway as error:
            raise CommandError(
                f"{error}. Start the site by `make run`, and call this with the same DATA_DIR."
            ) from error

    def _require(self, options: dict[str, Any]) -> None:
        if settings.WHATSAPP_TOKEN or settings.SENDGRID_API_KEY or settings.SMS_API_KEY:
            raise CommandError(
                "This site has credentials of real providers; a simulation would write to people."
            )
        if not 0 <= options["failures"] <= 1 or not 0 < options["rate"] <= 100:
            raise CommandError("--failures is from 0 to 1 and --rate above 0, up to 100.")
        if not Retailer.objects.exists() or not Product.objects.exists():
            raise CommandError("There is no business yet. Run `manage.py seed` first.")


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
