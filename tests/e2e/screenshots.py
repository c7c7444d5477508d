"""Make the pictures of the documentation: `python -m tests.e2e.screenshots`."""

import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.e2e.pages import STAFF, open_staff_page
from tests.e2e.site import PASSWORD, ROOT, Site, chromium, running_site
from tests.e2e.test_outage import announce, refuse

IMAGES = ROOT / "docs" / "images"
_DESKTOP = {"width": 1280, "height": 800}
_PHONE = {"width": 390, "height": 844}


#: Begun when the messages have failed: a few go through, so it is seen under way.
_REQUEUE = """
from django.contrib.auth.models import User
from queueadmin import failuregroups, operations
from queueadmin.models import DeadLetter, FailureGroup
anna = User.objects.get(username="anna")
group = FailureGroup.objects.filter(actor="send_sms").order_by("-deaths").first()
failuregroups.assign(group.pk, to=anna, by=anna)
failuregroups.annotate(group.pk, by=anna, text="The gateway has an incident, @ben. Their page says 40 minutes.")
letters = DeadLetter.objects.filter(fingerprint=group.fingerprint, status="pending")
letters = letters.exclude(error_message__contains="0000")  # the demo's, always refused
operations.create(
    letters.order_by("died_at").values_list("pk", flat=True), by=anna, group=group,
    name="SMS gateway incident", reason="They say that it is over.", rate=0.2, canary=5,
)
"""


def main() -> None:
    """Write a picture of every staff page, light, dark and on a phone."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        running_site(Path(directory), RELEASE="5.2.1") as site,
        chromium() as browser,
    ):
        make_busy(site)
        for suffix, colours, size in (
            ("", "light", _DESKTOP),
            ("-dark", "dark", _DESKTOP),
            ("-phone", "light", _PHONE),
        ):
            context = browser.new_context(color_scheme=colours, viewport=size)
            page = context.new_page()
            _log_in(page, site.address + "/admin/", "anna")
            for name in STAFF:
                open_staff_page(page, site.address, name)
                _save(page, name + suffix)
            page.goto(site.inbox)
            _save(page, "inbox" + suffix)
            context.close()
            context = browser.new_context(color_scheme=colours, viewport=size)
            page = context.new_page()
            _log_in(page, site.address + "/orders/", "shop")
            page.goto(site.address + "/orders/new/", wait_until="networkidle")
            _save(page, "new-order" + suffix)
            page.goto(site.address + "/orders/1/")
            _save(page, "order" + suffix)
            context.close()


def make_busy(site: Site) -> None:
    """Let messages fail for real in three ways, and write a past to it."""
    site.shell((ROOT / "tests/e2e/busy_rows.py").read_text())
    refuse(site, "sms")
    refuse(site, "whatsapp", fault="outage")
    refuse(site, "email", fault="slow")
    announce(site, ("sms", 0, 34), ("whatsapp", 0, 40), ("email", 0, 60))
    time.sleep(12)
    refuse(site, "sms", fault=None)
    site.shell(_REQUEUE)
    time.sleep(12)  # the canary, and a look for alerts


def _log_in(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit], input[type=submit], main button")
    page.wait_for_load_state("networkidle")


def _save(page: Page, name: str) -> None:
    picture = Image.open(BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(64).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
