"""Every page of ours by axe-core, in light and dark."""

from typing import Any

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.pages import STAFF, open_staff_page
from tests.e2e.test_stories import vendor_link

# All pages in one test, also on a machine that has other work.
pytestmark = pytest.mark.timeout(420)


#: Django's own markup: its search field is labelled by the picture of a lens, whose text
#: the checker does not count as visible.
_STOCK = {("label-title-only", 'id="searchbar"')}


def violations(page: Page) -> list[str]:
    found: dict[str, Any] = Axe().run(page)
    return [
        f"{violation['id']}: {node['html'][:120]}"
        for violation in found["violations"]
        for node in violation["nodes"]
        if not any(violation["id"] == rule and mark in node["html"] for rule, mark in _STOCK)
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_staff_pages_have_no_violation(site, person, colours):
    # The checker is a script of the test; the pages' own policy is tested by the stories.
    page = person("anna", color_scheme=colours, bypass_csp=True)

    found = {}
    for name in STAFF:
        open_staff_page(page, site[0], name)
        found[name] = violations(page)

    assert found == {name: [] for name in STAFF}


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_shop_pages_have_no_violation(site, person, colours):
    page = person("shop", color_scheme=colours, bypass_csp=True)

    found = {}
    stranger = person(None, color_scheme=colours, bypass_csp=True)
    for path in ("/accounts/login/", "/admin/login/"):
        stranger.goto(site[0] + path)
        found[path] = violations(stranger)
    for path in (
        "/orders/",
        "/orders/new/",
        "/orders/1/",
        "/orders/4/delivery/",
        "/orders/credit/",
        "/orders/settings/",
    ):
        page.goto(site[0] + path)
        found[path] = violations(page)
    page.goto(vendor_link(page, site, "1"))
    found["vendor"] = violations(page)
    page.goto(site[1] + "/")
    found["inbox"] = violations(page)

    assert all(not problems for problems in found.values()), found


def test_on_a_phone_nothing_scrolls_sideways(site, person):
    page = person("anna", viewport={"width": 390, "height": 844})

    widths = {}
    for name in STAFF:
        open_staff_page(page, site[0], name)
        widths[name] = page.evaluate("document.documentElement.scrollWidth")

    assert {name: width for name, width in widths.items() if width > 390} == {}


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
