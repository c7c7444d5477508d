"""What happens to orders when people, clocks and providers misbehave: by HTTP, on the whole site.

Vendors have a quarter of a minute to answer. The shell only moves times and asks what the
database says.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.config.processes import wait_until
from tests.e2e.site import Site, log_in, running_site, token

pytestmark = pytest.mark.timeout(240)

FACTS = """
import json
from notifications.models import Delivery
from orders.models import CreditAccount, Order
from queueadmin.models import Job
order = Order.objects.get(pk={order})
about = f"orders.order:{{order.pk}}"
print(json.dumps({{
    "state": order.state,
    "requests": list(order.requests.order_by("pk").values_list("state", flat=True)),
    "deliveries": list(Delivery.objects.filter(subject=about).values_list(
        "event", "channel", "state", "recipient_name")),
    "asked": [
        str(sent.reference)
        for sent in Delivery.objects.filter(subject=about, event="vendor_request").order_by("pk")],
    "references": {{
        f"{{sent.event}} {{sent.channel}}": str(sent.reference)
        for sent in Delivery.objects.filter(subject=about)}},
    "jobs": [[job.actor, job.state, str(job.due_at), job.attempts]
        for job in Job.objects.filter(subject=about).order_by("due_at", "id")],
    "reminders": [[reminder.kind, reminder.state, str(reminder.booking.slot_id)]
        for reminder in order.booking.reminders.order_by("pk")]
        if hasattr(order, "booking") else [],
}}))
"""


#: The demo's own orders would use up what a minute allows.
NO_RATE = """
from django.contrib.auth.models import User
from queueadmin import queues
from queueadmin.policies import Rate
admin = User.objects.get(username="admin")
queues.limit("vendor-fallback", rate=Rate(10_000, 1000), concurrency=8, by=admin, reason="test")
"""
#: Waits until a vendor is asked, gives it an hour to answer, and prints its link.
HOLD = """
import time
from datetime import timedelta
from django.utils import timezone
from orders import links
from orders.models import VendorRequest
requests = VendorRequest.objects.filter(order={order}, state="open")
deadline = time.monotonic() + 30
while not requests.update(expires_at=timezone.now() + timedelta(hours=1)):
    assert time.monotonic() < deadline
    time.sleep(0.1)
print(links.url(requests.get()))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("business")
    with running_site(directory, VENDOR_ANSWER_MINUTES="0.25") as site:
        site.shell(NO_RATE)
        yield site


@pytest.fixture
def shop(site: Site) -> Iterator[httpx2.Client]:
    site.fail({"fault": None})
    with httpx2.Client(base_url=site.address, timeout=30) as client:
        log_in(client, "shop")
        yield client


def facts(site: Site, order: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.shell(FACTS.format(order=order)).splitlines()[-1])
    return found


def until(site: Site, order: int, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until something holds of an order, and return its facts."""
    last: dict[str, Any] = {}

    def look() -> bool:
        last.update(facts(site, order))
        return holds(last)

    try:
        wait_until(look, seconds=120)
    except AssertionError:
        raise AssertionError(last) from None
    return last


def post_order(shop: httpx2.Client, payment: str = "cash", quantity: int = 1) -> httpx2.Response:
    page = shop.get("/orders/new/").text
    (once,) = re.findall(r'name="token" value="([^"]+)"', page)
    field = re.findall(r'name="(quantity_\d+)"', page)[0]
    form = {field: str(quantity), "token": once, "payment": payment, **token(shop)}
    return shop.post("/orders/new/", data=form)


def place(shop: httpx2.Client) -> int:
    answer = post_order(shop)
    assert answer.status_code == 302, answer.text
    return int(answer.headers["Location"].strip("/").rsplit("/")[-1])


def links(site: Site, order: int) -> list[str]:
    """Return the links vendors got about an order, in the order of asking."""
    texts = {line["reference"]: line["text"] for line in site.journal()}
    sent = [texts[reference] for reference in facts(site, order)["asked"] if reference in texts]
    return [link for text in sent for link in re.findall(r"/vendor/[^\s\"]+/", text)]


def hold(site: Site, order: int) -> str:
    """Return the link of the vendor that is asked, which has time to answer."""
    return urlsplit(site.shell(HOLD.format(order=order)).split()[-1]).path


def answer(site: Site, link: str, word: str) -> int:
    with httpx2.Client(base_url=site.address, timeout=30) as vendor:
        vendor.get("/accounts/login/")  # a page with a form, whatever the link leads to by now
        return vendor.post(link, data={"answer": word, **token(vendor)}).status_code


def test_silent_vendors_are_passed_over_until_none_is_left_and_all_are_told(
    site: Site, shop: httpx2.Client
) -> None:
    order = place(shop)

    ended = until(site, order, lambda now: now["state"] == "unfulfillable")
    assert ended["requests"] == ["silent"] * 3
    told = until(
        site,
        order,
        lambda now: sum(row[2] == "sent" for row in now["deliveries"] if row[0] in ENDED) == 6,
    )["deliveries"]
    shops = {row[1] for row in told if row[0] == "order_unfulfillable"}
    vendors = {row[3] for row in told if row[0] == "vendor_released"}
    assert shops == {"whatsapp", "email", "sms"}
    assert len(vendors) == 3
    assert "cannot be delivered" in shop.get(f"/orders/{order}/").text
    for link in links(site, order):
        assert answer(site, link, "confirm") == 410


ENDED = ("order_unfulfillable", "vendor_released")
#: Lets the time of an order that waits for its vendor be over, and sweeps.
EXPIRE = """
from django.utils import timezone
from orders.actors import sweep_expired_orders
from orders.models import Order
Order.objects.filter(pk={order}).update(expires_at=timezone.now())
sweep_expired_orders.send()
"""


def test_a_confirmation_after_the_expiry_comes_too_late(site: Site, shop: httpx2.Client) -> None:
    order = place(shop)
    link = hold(site, order)
    site.shell(EXPIRE.format(order=order))
    until(site, order, lambda now: now["state"] == "expired")

    assert answer(site, link, "confirm") == 410

    now = facts(site, order)
    assert (now["state"], now["requests"][-1]) == ("expired", "withdrawn")


def test_an_expiry_after_the_confirmation_finds_nothing_to_do(
    site: Site, shop: httpx2.Client
) -> None:
    order = place(shop)
    assert answer(site, hold(site, order), "confirm") == 302

    site.shell(EXPIRE.format(order=order))
    time.sleep(2)  # the sweep runs; nothing tells that it found nothing

    assert facts(site, order)["state"] == "confirmed"


def test_orders_at_once_stay_within_the_credit(site: Site, shop: httpx2.Client) -> None:
    codes: list[int] = []

    def order() -> None:
        with httpx2.Client(base_url=site.address, timeout=30) as client:
            log_in(client, "corner")
            codes.append(post_order(client, "credit", quantity=10).status_code)

    buyers = [threading.Thread(target=order) for _buyer in range(8)]
    for buyer in buyers:
        buyer.start()
    for buyer in buyers:
        buyer.join()

    said = site.shell(
        "from orders.models import CreditAccount\n"
        "for pk, balance, total in CreditAccount.objects.sums(): "
        "print(pk, balance, total, CreditAccount.objects.get(pk=pk).limit)"
    )
    for line in said.splitlines():
        _pk, balance, total, limit = line.split()
        assert Decimal(balance) == Decimal(total) <= Decimal(limit)
    # 600.00 hold three orders of 189.00.
    assert sorted(codes) == [302] * 3 + [422] * 5


def test_a_moved_booking_moves_its_reminders(site: Site, shop: httpx2.Client) -> None:
    order = place(shop)
    address = f"/orders/{order}/delivery/"
    slots = re.findall(r'name="slot" value="(\d+)"', shop.get(address).text)
    first, second = slots[-2], slots[-1]

    shop.post(address, data={"slot": first, **token(shop)})
    before = facts(site, order)
    shop.post(address, data={"slot": second, **token(shop)})
    after = facts(site, order)

    planned = {kind for kind, state, _slot in before["reminders"] if state == "planned"}
    assert len(planned) == 3
    assert [state for _kind, state, _slot in after["reminders"]].count("planned") == 3
    was, now = (
        {job[2] for job in jobs if job[0] == "booking_reminder" and job[1] == "scheduled"}
        for jobs in (before["jobs"], after["jobs"])
    )
    assert len(was) == len(now) == 3
    assert was.isdisjoint(now)


def test_while_sendgrid_is_down_smtp_delivers_once(site: Site, shop: httpx2.Client) -> None:
    site.fail({"channel": "email", "fault": "outage"})
    order = place(shop)

    until(
        site,
        order,
        lambda now: ["order_placed", "email", "sent", "Harbour Shop"] in now["deliveries"],
    )
    mails = [
        line["provider"]
        for line in site.journal()
        if line["channel"] == "email" and re.search(rf"\b{order}\b", line["subject"])
    ]
    assert mails == ["smtp"]


def test_a_throttled_whatsapp_is_asked_again_when_it_says(site: Site, shop: httpx2.Client) -> None:
    site.fail(
        {"channel": "whatsapp", "recipient": "+447700900123", "fault": "throttled", "times": 1}
    )
    order = place(shop)

    now = until(
        site,
        order,
        lambda now: ["order_placed", "whatsapp", "sent", "Harbour Shop"] in now["deliveries"],
    )
    reference = now["references"]["order_placed whatsapp"]
    waits = site.shell(
        "from queueadmin.models import Attempt, Job\n"
        f"jobs = Job.objects.filter(subject='orders.order:{order}', actor='send_whatsapp')\n"
        "for job in jobs:\n"
        "    rows = list(Attempt.objects.filter(job=job).order_by('id'))\n"
        "    if len(rows) == 2: print("
        "(rows[1].started_at - rows[0].started_at).total_seconds() - rows[0].duration_ms / 1000)"
    ).split()
    assert len(waits) == 1
    assert 1.9 <= float(waits[0]) < 5
    assert [line["reference"] for line in site.journal()].count(reference) == 1


def test_a_receipt_that_comes_before_the_sends_own_record_stays(
    site: Site, shop: httpx2.Client
) -> None:
    # Taken at once, reported as delivered 0.2 s later, answered after our client has given up.
    site.fail({"channel": "whatsapp", "recipient": "+447700900123", "fault": "slow", "times": 1})
    order = place(shop)
    sent = ["order_placed", "whatsapp", "sent", "Harbour Shop"]

    now = until(site, order, lambda now: sent in now["deliveries"])

    # Only the receipt can have said so: the call itself was given up after ten seconds.
    assert "dead" not in {job[1] for job in now["jobs"]}
    reference = now["references"]["order_placed whatsapp"]
    assert [line["reference"] for line in site.journal()].count(reference) == 1
    proof = site.shell(
        "from notifications.models import Delivery\n"
        f"sent = Delivery.objects.get(reference='{reference}')\n"
        "print(sent.sent_at == sent.receipt_at, sent.receipt)"
    )
    assert proof.split() == ["True", "delivered"]
