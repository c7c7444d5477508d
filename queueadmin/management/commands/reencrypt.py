"""Changes the key of everything that is kept encrypted."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from queueadmin import encryption, rekeying


class Command(BaseCommand):
    help = "Encrypts kept sensitive payloads with the first key of QUEUEADMIN['ENCRYPTION_KEYS']."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count")
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, *args: Any, **options: Any) -> None:
        if not encryption.is_on():
            raise CommandError("QUEUEADMIN['ENCRYPTION_KEYS'] is empty; put a key there first.")
        found = rekeying.rekey(dry_run=options["dry_run"])
        if options["format"] == "json":
            self.stdout.write(json.dumps(asdict(found)))
        else:
            verb = "would be encrypted" if options["dry_run"] else "encrypted"
            self.stdout.write(
                f"{found.looked_at} sensitive payloads, {found.renewed} {verb} anew; "
                f"{found.undecryptable} opened by no key."
            )
            if found.unfinished:
                self.stdout.write(
                    f"{found.unfinished} of them are unfinished: keep the old key until they are."
                )
        if found.undecryptable:
            raise CommandError(
                f"{found.undecryptable} payloads are encrypted with a key that is not there.",
                returncode=2,
            )
