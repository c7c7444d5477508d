"""Every page of ours by axe-core, in light and dark."""

from typing import Any

import pytest
from axe_core_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.e2e.pages import STAFF, open_staff_page
from tests.e2e.test_stories import vendor_link

pytestmark = pytest.mark.timeout(180)


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


@pytest.mark.parametrize("name", STAFF)
def test_on_a_phone_nothing_scrolls_sideways(site, person, name):
    page = person("anna", viewport={"width": 390, "height": 844})

    open_staff_page(page, site[0], name)

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
