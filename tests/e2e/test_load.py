"""Many shops order at once on the whole site while workers are killed.

`LOAD_ORDERS=1000` is the full size; the default keeps the run short.
"""

import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.config.processes import wait_until
from tests.e2e.site import PASSWORD, Site, log_in, running_site, token

ORDERS = int(os.environ.get("LOAD_ORDERS", "60"))
CLIENTS = 20
#: Messages that a provider neither takes nor refuses, at each kill.
LOST_REQUESTS = 3

pytestmark = pytest.mark.timeout(180 + 2 * ORDERS)

#: Shops with log-ins of their own, little stock, tight credit, and no rate limit in the way.
PREPARE = f"""
from decimal import Decimal
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F
from orders.models import CreditAccount, Offer, OrderLine, Retailer
from queueadmin import queues
from queueadmin.policies import Rate
for number in range({CLIENTS}):
    user = User.objects.create_user(f"load-{{number}}", password={PASSWORD!r})
    shop = Retailer.objects.create(user=user, name=f"Load {{number}}",
        phone=f"+447700900{{800 + number}}", email=f"load-{{number}}@example.com")
    CreditAccount.objects.create(retailer=shop, limit=Decimal(300))
with transaction.atomic():  # the demo's own orders hold some of it already
    Offer.objects.update(stock={ORDERS})
    for line in OrderLine.objects.filter(order__requests__state__in=["open", "accepted"]):
        Offer.objects.filter(vendor=line.order.vendor, product=line.product).update(
            stock=F("stock") - line.quantity)
admin = User.objects.get(username="admin")
for name in ("order-processing", "vendor-fallback", "order-expiry", "email-notifications",
             "sms-notifications"):
    queues.limit(name, rate=Rate(10_000, 1000), concurrency=8, by=admin, reason="load test")
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as site:
        site.shell(PREPARE)
        yield site


def shop_around(site: Site, number: int, placed: list[int]) -> None:
    """Be one shop: place this client's share of the orders, some on credit, some sent twice."""
    chance = random.Random(number)
    with httpx2.Client(base_url=site.address, timeout=60) as client:
        log_in(client, f"load-{number}")
        for _order in range(ORDERS // CLIENTS):
            page = client.get("/orders/new/").text
            fields = re.findall(r'name="(quantity_\d+)"', page)
            (once,) = re.findall(r'name="token" value="([^"]+)"', page)
            wanted = dict.fromkeys(chance.sample(fields, 2), str(chance.randint(1, 3)))
            payment = chance.choice(["cash", "credit"])
            form = {**wanted, "token": once, **token(client)}
            answer = client.post("/orders/new/", data={**form, "payment": payment})
            if answer.status_code == 422:  # the credit is used up
                answer = client.post("/orders/new/", data={**form, "payment": "cash"})
            for _click in range(chance.choice([0, 0, 1])):
                answer = client.post("/orders/new/", data={**form, "payment": "cash"})
            assert answer.status_code == 302, answer.text
            placed.append(int(answer.headers["Location"].strip("/").rsplit("/")[-1]))


def answer_links(site: Site, stop: threading.Event) -> None:
    """Be all vendors: answer each link once, one in eight by a refusal."""
    answered: set[str] = set()
    chance = random.Random(1)
    with httpx2.Client(base_url=site.address, timeout=60) as client:
        while not stop.is_set():
            for link in re.findall(r"/vendor/[^ \"]+/", json.dumps(site.journal())):
                if link not in answered:
                    answered.add(link)
                    client.get(link)
                    answer = "refuse" if chance.random() < 0.125 else "confirm"
                    client.post(link, data={"answer": answer, **token(client)})
            stop.wait(0.3)


def test_orders_of_many_clients_survive_killed_workers(site: Site) -> None:
    placed: list[int] = []
    stop = threading.Event()
    vendors = threading.Thread(target=answer_links, args=(site, stop))
    vendors.start()
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            runs = [pool.submit(shop_around, site, number, placed) for number in range(CLIENTS)]
            for share in (3, 2):
                wait_until(lambda share=share: len(placed) * share >= ORDERS, seconds=ORDERS + 60)
                # Some outcomes are unknown for certain, whatever the killed workers were doing.
                site.fail({"channel": "sms", "fault": "lost_request", "times": LOST_REQUESTS})
                os.kill(random.choice(site.workers()).pid, signal.SIGKILL)
            for run in runs:
                run.result()
        taken = time.monotonic() - began
        wait_until(lambda: is_settled(site.facts()), seconds=120 + ORDERS)
    finally:
        stop.set()
        vendors.join()

    facts = site.facts()
    print(f"{len(placed)} orders in {taken:.1f} s; {facts['orders']}")
    assert len(set(placed)) == ORDERS // CLIENTS * CLIENTS
    # The demo's own four orders are there too.
    assert sum(facts["orders"].values()) == len(set(placed)) + 4
    assert all(left >= 0 and left + taken == ORDERS for left, taken in facts["stock"])
    assert facts["requests_too_many"] == 0
    for balance, entries, limit in facts["accounts"]:
        assert Decimal(balance) == Decimal(entries)
        assert Decimal(0) <= Decimal(balance) <= Decimal(limit)
    assert facts["charges_without_order"] == 0
    lost = _check_messages(site, facts)
    assert len(lost) >= LOST_REQUESTS
    _resend(site, lost)


def is_settled(facts: dict[str, Any]) -> bool:
    waiting = {"placed", "routing", "awaiting_vendor"} & set(facts["orders"])
    return not waiting and not facts["busy"]


def _check_messages(site: Site, facts: dict[str, Any]) -> set[str]:
    """At most one message per delivery reached a provider; who got none is known.

    Returns the references of the deliveries whose outcome is unknown.
    """
    references = {message["reference"] for message in site.journal() if message["reference"]}
    times = Counter(message["reference"] for message in site.journal() if message["reference"])
    assert not [reference for reference, count in times.items() if count > 1]
    kinds = Counter(
        (subject, event, channel)
        for _reference, event, channel, subject, _state in facts["deliveries"]
        if event == "order_confirmed"
    )
    assert set(kinds.values()) == {1}
    for reference, event, channel, subject, state in facts["deliveries"]:
        if reference not in references:
            # The demo's kiosk has a number that is always refused.
            assert state in ("unknown", "failed"), (event, channel, subject, state)
    lost = {row[0] for row in facts["deliveries"] if row[4] == "unknown"}
    # What a receipt has proven since is sent; its letter is still there.
    proven = {row[0] for row in facts["deliveries"] if row[4] == "sent"} & references
    assert lost <= set(facts["letters"]) <= lost | proven
    assert len(facts["letters"]) == len(set(facts["letters"]))
    return lost


def _resend(site: Site, lost: set[str]) -> None:
    """Resend everything unknown as staff do in the admin, twice, and see each sent once."""
    arrived = Counter(message["reference"] for message in site.journal())
    with httpx2.Client(base_url=site.address, timeout=60) as client:
        log_in(client, "anna")
        page = client.get("/admin/notifications/delivery/?state__exact=unknown").text
        chosen = re.findall(r'name="_selected_action" value="(\d+)"', page)
        assert len(chosen) == len(lost)
        form = {"action": "resend", "_selected_action": chosen, "reason": "load test"}
        form |= {**token(client), "confirm": "1"}
        for _press in range(2):
            answer = client.post("/admin/notifications/delivery/", data=form)
            assert answer.is_redirect, answer.text
    wait_until(lambda: not site.facts()["busy"], seconds=60)

    facts = site.facts()
    states = {row[0]: row[4] for row in facts["deliveries"]}
    assert {reference: states[reference] for reference in lost} == dict.fromkeys(lost, "sent")
    assert lost.isdisjoint(facts["letters"])
    now = Counter(message["reference"] for message in site.journal())
    assert now - arrived == Counter(lost)
