"""Every page of ours by axe-core, in light and dark, and its width on a phone."""

from typing import Any

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from tests.e2e.pages import STAFF, open_staff_page
from tests.e2e.test_stories import vendor_link

# All pages in one test, also on a machine that has other work.
pytestmark = pytest.mark.timeout(420)

AXE = Axe()
#: The rule that looks at colours; to the others the document is the same in light and dark.
_OF_COLOURS = {"type": "rule", "values": ["color-contrast"]}
_DESKTOP, _PHONE = ViewportSize(width=1280, height=720), ViewportSize(width=390, height=844)
#: Django's own markup: its search field is labelled by the picture of a lens, whose text
#: the checker does not count as visible.
_STOCK = {("label-title-only", 'id="searchbar"')}


def violations(page: Page, **options: Any) -> list[str]:
    found = AXE.run(page, options={"resultTypes": ["violations"], **options})
    return [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in found["violations"]
        for node in violation["nodes"]
        if not any(violation["id"] == rule and mark in node["html"] for rule, mark in _STOCK)
    ]


def faults(page: Page) -> list[str]:
    """Return what is wrong with the page that is open, in light, in dark and on a phone."""
    background = "getComputedStyle(document.body).backgroundColor"
    found = [f"light, {each}" for each in violations(page)]
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    # Links go from one colour to the other in a moment.
    page.evaluate("Promise.all(document.getAnimations().map(each => each.finished))")
    found += [f"dark, {each}" for each in violations(page, runOnly=_OF_COLOURS)]
    if page.evaluate(background) == light:
        found.append("dark is as light")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(_PHONE)
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > _PHONE["width"]:
        found.append(f"on a phone it scrolls sideways: {width} px")
    page.set_viewport_size(_DESKTOP)
    return found


def test_staff_pages_are_without_fault(site, person):
    # The checker is a script of the test; the pages' own policy is tested by the stories.
    page = person("anna", bypass_csp=True)

    found = {}
    for name in STAFF:
        open_staff_page(page, site[0], name)
        found[name] = faults(page)

    assert found == {name: [] for name in STAFF}


def test_shop_pages_are_without_fault(site, person):
    page = person("shop", bypass_csp=True)

    found = {}
    stranger = person(None, bypass_csp=True)
    for path in ("/accounts/login/", "/admin/login/"):
        stranger.goto(site[0] + path)
        found[path] = faults(stranger)
    for path in (
        "/orders/",
        "/orders/new/",
        "/orders/1/",
        "/orders/4/delivery/",
        "/orders/credit/",
        "/orders/settings/",
    ):
        page.goto(site[0] + path)
        found[path] = faults(page)
    page.goto(vendor_link(page, site, "1"))
    found["vendor"] = faults(page)
    page.goto(site[1] + "/")
    found["inbox"] = faults(page)

    assert all(not problems for problems in found.values()), found


def test_a_list_is_worked_through_by_keyboard(site, person):
    page = person("anna")
    page.goto(f"{site[0]}/admin/queueadmin/deadletter/?status=all")
    first = page.locator("#result_list tbody tr").first

    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(first.locator("input.action-select")).to_be_checked()
    page.keyboard.press("x")
    expect(first.locator("input.action-select")).not_to_be_checked()
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(first.locator("th a")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("xjk")
    expect(page.locator("#searchbar")).to_have_value("xjk")

    first.locator("th a").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".qa-record")
