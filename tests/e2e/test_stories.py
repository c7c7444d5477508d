"""What people do with the whole site, in a real browser."""

import json
import re
import time
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.timeout(180)


def inbox(site):
    with urlopen(site[1] + "/inbox.json") as answer:
        return json.load(answer)


def until(page: Page, condition, seconds: float = 20) -> None:
    """Load the page again until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, page.inner_text("body")
        page.wait_for_timeout(300)
        page.reload()


def place_order(page: Page, site) -> str:
    """Place an order and return its number."""
    page.goto(site[0] + "/orders/new/")
    page.locator(".catalogue input").first.fill("2")
    page.get_by_role("button", name="Place order").click()
    page.wait_for_url(re.compile(r"/orders/\d+/$"))
    return page.url.rstrip("/").rsplit("/", 1)[-1]


def test_an_order_becomes_three_messages_and_its_jobs_are_in_the_admin(site, person):
    shop = person("shop")
    number = place_order(shop, site)

    until(shop, lambda: shop.locator("ul.history .state:is(.sent, .delivered)").count() == 3)
    channels = {
        message["channel"] for message in inbox(site)["messages"] if number in json.dumps(message)
    }
    assert channels == {"whatsapp", "email", "sms"}
    shop.goto(site[1] + "/")
    assert f"Order {number}" in shop.content() or number in shop.content()

    admin = person("admin")
    admin.goto(f"{site[0]}/admin/queueadmin/job/?q=orders.order:{number}")
    for actor in ("route_order", "send_whatsapp", "send_email", "send_sms"):
        expect(admin.locator("#result_list tbody th a", has_text=actor).first).to_be_visible()
    admin.locator("#result_list tbody th a", has_text="send_whatsapp").first.click()
    expect(admin.locator(".qa-record")).to_be_visible()
    assert "completed" in admin.inner_text("#content")
    assert "attempt 1 of 5" in admin.inner_text("#content")


def test_an_order_goes_from_the_shop_by_its_vendor_to_its_door(site, person):
    shop = person("shop")
    number = place_order(shop, site)
    link = vendor_link(shop, site, number)

    vendor = person(None)
    vendor.goto(link)
    vendor.get_by_role("button", name="Confirm").click()
    expect(vendor.get_by_text("You have confirmed this order")).to_be_visible()
    admin = person("admin")
    for button in ("Out for delivery", "Delivered"):
        admin.goto(f"{site[0]}/admin/orders/order/{number}/change/")
        admin.get_by_role("button", name=button).click()

    shop.goto(f"{site[0]}/orders/{number}/")
    until(shop, lambda: "Order delivered" in shop.inner_text("main"))
    assert "delivered" in shop.inner_text(".head")
    # The sandbox reports each message as delivered, by signed webhooks.
    told = shop.locator("ul.history li", has_text="order confirmed").filter(has_text="WhatsApp")
    until(shop, lambda: "delivered" in told.inner_text())


def test_a_vendor_that_refuses_is_replaced_and_a_link_answers_once(site, person):
    shop = person("corner")
    number = place_order(shop, site)
    first = vendor_link(shop, site, number)

    vendor = person(None)
    vendor.goto(first)
    vendor.get_by_role("button", name="Refuse").click()
    expect(vendor.get_by_text("You have refused this order")).to_be_visible()
    second = vendor_link(shop, site, number, other_than=first)

    vendor.goto(second)
    vendor.get_by_role("button", name="Confirm").click()
    expect(vendor.get_by_text("You have confirmed this order")).to_be_visible()
    vendor.goto(first)
    assert vendor.get_by_role("button", name="Confirm").count() == 0


def test_a_delivery_time_and_wishes_are_chosen_on_a_phone(site, person):
    shop = person("shop", viewport={"width": 390, "height": 844})
    place_order(shop, site)

    shop.get_by_role("link", name="Choose a delivery time").click()
    shop.locator(".slots input").last.check()
    shop.get_by_role("button", name="Choose").click()
    expect(shop.get_by_text("24 hours before")).to_be_visible()
    shop.get_by_role("link", name="Messages", exact=True).click()
    shop.get_by_role("button", name="Keep").click()

    expect(shop.get_by_text("Your wishes are kept.")).to_be_visible()


def vendor_link(page: Page, site, number: str, other_than: str = "") -> str:
    """Wait for the message that asks a vendor for an order, and return its link."""
    found: list[str] = []

    def asked() -> bool:
        found[:] = [
            link
            for message in inbox(site)["messages"]
            if f"order {number} for" in message["text"]
            for link in re.findall(r"http\S+/vendor/\S+/", message["text"])
            if link != other_than
        ]
        return bool(found)

    until(page, asked)
    return found[-1]


@pytest.mark.parametrize("with_script", [True, False])
def test_a_refused_number_is_mended_requeued_and_recovered(site, person, with_script):
    shop = person("kiosk")
    number = place_order(shop, site)
    anna = person("anna", java_script_enabled=with_script)

    letters = f"{site[0]}/admin/queueadmin/deadletter/?q=orders.order:{number}"
    anna.goto(letters)
    whatsapp = anna.locator("#result_list tbody th a", has_text="send_whatsapp").first
    until(anna, lambda: whatsapp.count() > 0)
    whatsapp.click()
    letter = anna.url
    text = anna.inner_text("#content")
    assert "131026" in text
    assert "1/5" in text.replace(" ", "") or "1of5" in text.replace(" ", "")

    anna.fill("textarea[name=text]", "The shop has a new number.\nI ask them.")
    anna.get_by_role("button", name=re.compile("note", re.IGNORECASE)).click()
    expect(anna.get_by_text("The shop has a new number.")).to_be_visible()

    _set_phone(anna, site, "+447700900789")
    anna.goto(letter)
    anna.locator("#content-main").get_by_role("button", name="Requeue").first.click()
    anna.get_by_role("button", name=re.compile(r"Requeue.*\(1\)")).click()
    anna.goto(letter)
    until(anna, lambda: "recovered" in anna.inner_text("#content"))
    assert "anna" in anna.inner_text("#content")
    assert any(
        message["channel"] == "whatsapp" and "900789" in json.dumps(message)
        for message in inbox(site)["messages"]
    )
    _set_phone(anna, site, "+447700900000")


def _set_phone(page: Page, site, phone: str) -> None:
    page.goto(f"{site[0]}/admin/orders/retailer/?q=Kiosk")
    page.get_by_role("link", name=re.compile("Kiosk")).first.click()
    page.fill("input[name=phone]", phone)
    page.click("input[name=_save]")
    page.wait_for_url("**/admin/orders/retailer/**")


#: Where a viewer's browser could send what no page offers.
FORGED = (
    *(
        f"deadletter/act/{verb}/"
        for verb in ("requeue", "assign-to-me", "set-priority", "snooze", "wake", "mark-failed")
    ),
    "deadletter/1/note/",
    "deadletter/1/edit/",
    "job/act/cancel/",
    "failuregroup/1/do/resolve/",
    "failuregroup/1/do/annotate/",
    "requeueoperation/new/",
    "queue/order-processing/do/pause/",
    "schedulecontrol/recovery/do/run/",
    "assignmentrule/add/",
)


def test_a_viewer_sees_everything_and_may_do_nothing(site, person):
    viewer = person("viewer")
    viewer.goto(f"{site[0]}/admin/queueadmin/deadletter/?status=all")
    viewer.locator("#result_list tbody a").first.click()

    assert (
        viewer.locator("#content-main")
        .get_by_role("button", name="Requeue…", exact=True)
        .is_disabled()
    )
    # Sent all the same: with a good token, but without the permission.
    token = {cookie["name"]: cookie["value"] for cookie in viewer.context.cookies()}
    answers = {
        address: viewer.request.post(
            f"{site[0]}/admin/queueadmin/{address}",
            form={
                "ids": "1",
                "reason": "x",
                "confirmed": "yes",
                "csrfmiddlewaretoken": token.get("csrftoken", ""),
            },
            headers={"Referer": viewer.url},
        ).status
        for address in FORGED
    }
    assert answers == dict.fromkeys(FORGED, 403)
