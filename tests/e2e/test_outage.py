"""An outage from its first failures to its return, in two browsers."""

import json
import re
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_stories import place_order, until

pytestmark = pytest.mark.timeout(240)
ORDERS = 6


def set_fault(site, fault: str | None) -> None:
    """Let the SMS provider refuse everything, or answer again."""
    data = json.dumps({"channel": "sms", "recipient": None, "fault": fault}).encode()
    request = Request(site[1] + "/faults", data, {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        assert answer.status == 200


def refused_for_good(page: Page, site) -> None:
    """Close what the demo's bad number has left, so that the outage stands alone."""
    page.goto(f"{site[0]}/admin/queueadmin/deadletter/?q=900000+cannot")
    if page.locator("input.action-select").count():
        page.locator("#action-toggle").check()
        page.select_option("select[name=action]", "mark_failed")
        page.locator("button[name=index]").first.click()
        page.fill("[name=reason]", "The number is wrong.")
        page.get_by_role("button", name=re.compile("Mark permanently failed")).click()


def confirm(page: Page, button: str, **fields: str) -> None:
    """Press a button that asks, fill in what it asks for, and confirm."""
    page.locator("#content-main").get_by_role("button", name=re.compile(f"^{button}")).click()
    for name, value in fields.items():
        page.fill(f"[name={name}]", value)
    page.locator("#content-main button[name=confirmed]").click()


def test_an_outage_is_understood_repaired_and_noticed_when_it_returns(site, person):
    anna, admin, shop = person("anna"), person("admin"), person("corner")
    refused_for_good(anna, site)
    set_fault(site, "bad_recipient")
    for _number in range(ORDERS):
        place_order(shop, site)

    # One trouble, however many failures.
    groups = f"{site[0]}/admin/queueadmin/failuregroup/?q=send_sms&status=all"
    pending = f"{site[0]}/admin/queueadmin/deadletter/?actor=send_sms"
    anna.goto(pending)
    until(anna, lambda: anna.locator("input.action-select").count() == ORDERS)
    anna.goto(groups)
    assert anna.locator("#result_list tbody tr").count() == 1
    anna.locator("#result_list tbody th a").first.click()
    expect(anna.locator(".qa-evidence a").first).to_be_visible()
    group = anna.url
    anna.get_by_role("button", name="Assign to me").click()
    anna.fill("textarea[name=text]", "The provider has an incident.")
    anna.get_by_role("button", name="Add note").click()
    expect(anna.get_by_text("The provider has an incident.")).to_be_visible()

    # Too early: the canary stops it by itself, and the second person sees the same.
    anna.get_by_role("link", name=f"Requeue {ORDERS}").click()
    anna.fill("[name=reason]", "They say that it is over.")
    anna.fill("[name=canary]", "2")
    anna.fill("[name=stop_at_percent]", "50")
    anna.get_by_role("button", name="Preview").click()
    expect(anna.get_by_text("2 jobs run first")).to_be_visible()
    anna.get_by_role("button", name=f"Start ({ORDERS})").click()
    operation = anna.url
    admin.goto(operation)
    for page in (anna, admin):
        # By itself: the page asks every two seconds.
        expect(page.locator("#qa-live")).to_contain_text("It stopped by itself", timeout=30_000)
    expect(anna.locator("#qa-live")).to_contain_text("2 failed again")

    # Mended: another canary, then the rest.
    set_fault(site, None)
    confirm(admin, "Resume", reason="Now it is over.")
    for page in (anna, admin):
        expect(page.locator("#qa-live")).to_contain_text("Finished", timeout=30_000)
        expect(page.locator("#qa-live")).to_contain_text(f"{ORDERS - 2} recovered")

    anna.goto(group)
    confirm(anna, "Resolve", what_was_done="The provider was down; waited and requeued.")
    expect(anna.locator("#content h1")).to_contain_text("resolved")

    # It returns, and says so.
    set_fault(site, "bad_recipient")
    place_order(shop, site)
    until(anna, lambda: "regressed" in anna.inner_text("#content h1"))
    set_fault(site, None)
    assert "The provider was down; waited and requeued." in anna.inner_text("#content")


def test_a_queue_is_paused_with_a_reason_that_everybody_sees(site, person):
    anna, viewer = person("anna", java_script_enabled=False), person("viewer")
    anna.goto(f"{site[0]}/admin/queueadmin/queue/")

    anna.get_by_role("button", name="Pause: daily-reports").click()
    anna.fill("[name=reason]", "The printer is on fire.")
    anna.locator("#content-main button[name=confirmed]").click()
    expect(anna.get_by_text("The printer is on fire.")).to_be_visible()

    viewer.goto(f"{site[0]}/admin/queueadmin/queue/")
    expect(viewer.get_by_text("anna: The printer is on fire.")).to_be_visible()
    assert viewer.get_by_role("button", name="Resume: daily-reports").is_disabled()
    anna.get_by_role("button", name="Resume: daily-reports").click()
    anna.locator("#content-main button[name=confirmed]").click()
    assert "printer" not in anna.inner_text("#content-main")
