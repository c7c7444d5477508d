"""An outage from its first failures to its return, in two browsers."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.site import Site

pytestmark = pytest.mark.timeout(240)

#: What three providers refuse: actor -> channel and number of messages; 500 in all.
LOST = {"send_sms": ("sms", 200), "send_whatsapp": ("whatsapp", 200), "send_email": ("email", 100)}

#: Messages to one shop, beyond the limits that the providers of production set.
ANNOUNCE = """
from django.contrib.auth.models import User
from notifications.announcing import announce
from notifications.models import Channel, Event
from orders.models import Order
from orders.telling import _order
from queueadmin import queues
from queueadmin.policies import Rate
admin = User.objects.get(username="admin")
for name in ("sms-notifications", "whatsapp-messages", "email-notifications"):
    queues.limit(name, by=admin, concurrency=10, rate=Rate(10_000, 1_000), reason="outage story")
order = Order.objects.filter(retailer__user__username="corner").earliest("pk")
for channel, first, last in {numbers!r}:
    for number in range(first, last):
        announce(Event.ORDER_PLACED, subject=order, recipient=order.retailer,
                 channels=[Channel(channel)], context=_order(order), occasion=f"outage {{number}}")
"""


def announce(site: Site, *numbers: tuple[str, int, int]) -> None:
    """Send messages that are told apart by their numbers."""
    site.shell(ANNOUNCE.format(numbers=numbers))


def refuse(site: Site, *channels: str, fault: str | None = "bad_recipient") -> None:
    """Let providers refuse everything; with None they answer again."""
    for channel in channels:
        site.fail({"channel": channel, "recipient": None, "fault": fault})


def confirm(page: Page, button: str, **fields: str) -> None:
    """Press a button that asks, fill in what it asks for, and confirm."""
    page.locator("#content-main").get_by_role("button", name=re.compile(f"^{button}")).click()
    for name, value in fields.items():
        page.fill(f"[name={name}]", value)
    page.locator("#content-main button[name=confirmed]").click()


def until(page: Page, condition: Any, seconds: int = 60) -> None:
    """Load the page again until the condition holds."""
    for _second in range(seconds):
        if condition():
            return
        page.wait_for_timeout(1_000)
        page.reload()
    raise AssertionError(page.inner_text("body"))


def test_an_outage_is_understood_repaired_and_noticed_when_it_returns(whole_site, person):
    address = whole_site.address
    anna, admin = person("anna"), person("admin")
    channels = [channel for channel, _number in LOST.values()]
    refuse(whole_site, *channels, "smtp")
    announce(whole_site, *((channel, 0, number) for channel, number in LOST.values()))

    # 500 failures are three troubles.
    groups = f"{address}/admin/queueadmin/failuregroup/"
    for actor, (_channel, number) in LOST.items():
        anna.goto(f"{groups}?q={actor}&status=all")
        hour = anna.locator("#result_list tbody tr .field-last_1h", has_text=re.compile(r"^\d{3}$"))
        until(anna, lambda hour=hour: hour.count() == 1)
        until(anna, lambda hour=hour, number=number: int(hour.inner_text()) >= number)
    refuse(whole_site, "whatsapp", "email", "smtp", fault=None)

    anna.goto(f"{groups}?q=send_sms&status=all")
    anna.locator(
        "#result_list tbody tr", has=anna.locator(".field-last_1h", has_text="20")
    ).locator("th a").click()
    group = anna.url
    expect(anna.locator(".qa-evidence")).to_contain_text("only queue sms-notifications")
    expect(anna.locator(".qa-line .qa-spark")).to_be_visible()
    anna.get_by_role("button", name="Assign to me").click()
    anna.fill("textarea[name=text]", "The provider has an incident, @admin.")
    anna.get_by_role("button", name="Add note").click()
    expect(anna.get_by_text("The provider has an incident, @admin.")).to_be_visible()
    admin.goto(f"{groups}?status=mentions")
    expect(admin.locator("#result_list tbody tr")).to_have_count(1)

    # Too early: the canary stops it by itself, and the second person sees the same.
    anna.get_by_role("link", name="Requeue 2").click()
    anna.fill("[name=reason]", "They say that it is over.")
    anna.fill("[name=canary]", "10")
    anna.fill("[name=stop_at_percent]", "50")
    anna.fill("[name=rate]", "20")
    anna.get_by_role("button", name="Preview").click()
    expect(anna.get_by_text("10 jobs run first")).to_be_visible()
    anna.get_by_role("button", name=re.compile(r"^Start \(2\d\d\)$")).click()
    operation = anna.url
    admin.goto(operation)
    for page in (anna, admin):
        # By itself: the page asks every two seconds.
        expect(page.locator("#qa-live")).to_contain_text("It stopped by itself", timeout=30_000)
    expect(anna.locator("#qa-live")).to_contain_text(re.compile(r"\d failed again"))

    # Mended: another canary, then the rest at 20 per second.
    refuse(whole_site, "sms", fault=None)
    confirm(admin, "Resume", reason="Now it is over.")
    for page in (anna, admin):
        expect(page.locator("#qa-live")).to_contain_text("Finished", timeout=60_000)
        expect(page.locator("#qa-live")).to_contain_text(re.compile(r"1[89]\d recovered|20\d rec"))

    anna.goto(group)
    expect(anna.locator("#content")).to_contain_text(re.compile(r"\d+ of \d+ recovered"))
    confirm(anna, "Resolve", what_was_done="The provider was down; waited and requeued.")
    expect(anna.locator("#content h1")).to_contain_text("resolved")

    # It returns, and says so.
    refuse(whole_site, "sms")
    announce(whole_site, ("sms", 1_000, 1_001))
    until(anna, lambda: "regressed" in anna.inner_text("#content h1"))
    refuse(whole_site, "sms", fault=None)
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
