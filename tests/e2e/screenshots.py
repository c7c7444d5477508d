"""Make the pictures of the documentation: `python -m tests.e2e.screenshots`."""

import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.e2e.pages import STAFF, open_staff_page
from tests.e2e.site import PASSWORD, ROOT, chromium, running_site

IMAGES = ROOT / "docs" / "images"
_DESKTOP = {"width": 1280, "height": 800}
_PHONE = {"width": 390, "height": 844}


def main() -> None:
    """Write a picture of every staff page, light, dark and on a phone."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        running_site(Path(directory)) as (address, inbox),
        chromium() as browser,
    ):
        for suffix, colours, size in (
            ("", "light", _DESKTOP),
            ("-dark", "dark", _DESKTOP),
            ("-phone", "light", _PHONE),
        ):
            context = browser.new_context(color_scheme=colours, viewport=size)
            page = context.new_page()
            _log_in(page, address + "/admin/", "anna")
            page.wait_for_timeout(3_000)  # the demo's orders are under way
            for name in STAFF:
                open_staff_page(page, address, name)
                _save(page, name + suffix)
            page.goto(inbox)
            _save(page, "inbox" + suffix)
            context.close()
            context = browser.new_context(color_scheme=colours, viewport=size)
            page = context.new_page()
            _log_in(page, address + "/orders/", "shop")
            page.goto(address + "/orders/new/")
            _save(page, "new-order" + suffix)
            page.goto(address + "/orders/1/")
            _save(page, "order" + suffix)
            context.close()


def _log_in(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit], input[type=submit], main button")
    page.wait_for_load_state("networkidle")


def _save(page: Page, name: str) -> None:
    picture = Image.open(BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(128).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
