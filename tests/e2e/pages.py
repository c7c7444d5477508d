"""The pages that are looked at: by the accessibility checker and for the pictures."""

import re
from urllib.parse import urljoin

from playwright.sync_api import Page

LETTERS = "/admin/queueadmin/deadletter/"
JOBS = "/admin/queueadmin/job/"

#: Name of each staff page -> how to get there.
STAFF = (
    "overview",
    "queues",
    "pause-queue",
    "workers",
    "schedules",
    "failure-groups",
    "failure-group",
    "requeue-group",
    "change-group",
    "resolve-group",
    "requeue-operations",
    "requeue-operation",
    "dead-letters",
    "dead-letter",
    "requeue",
    "snooze",
    "edit-and-requeue",
    "assignment-rules",
    "assignment-rule",
    "jobs",
    "job",
    "attempts",
    "audit",
    "recovery-runs",
    "health",
    "alerts",
    "digest",
)
#: Pages with an address of their own.
_PLAIN = {
    "overview": "overview/",
    "queues": "queue/",
    "pause-queue": "queue/order-processing/do/pause/",
    "workers": "worker/",
    "schedules": "schedulecontrol/",
    "failure-groups": "failuregroup/",
    "requeue-operations": "requeueoperation/",
    "assignment-rules": "assignmentrule/",
    "assignment-rule": "assignmentrule/add/",
    "attempts": "attempt/",
    "audit": "auditentry/",
    "recovery-runs": "recoveryrun/",
    "alerts": "alert/?state=all",
    "digest": "alert/digest/",
}


def open_staff_page(page: Page, address: str, name: str) -> None:
    """Open one of STAFF as the person who is logged in."""
    if name in ("dead-letters", "dead-letter", "requeue", "snooze", "edit-and-requeue"):
        page.goto(urljoin(address, LETTERS))
        if name != "dead-letters":
            page.locator("#result_list tbody th a").first.click()
        if name == "requeue":
            page.locator("#content-main").get_by_role("button", name="Requeue").first.click()
        if name == "snooze":
            page.locator("#content-main").get_by_role("button", name="Snooze").click()
        if name == "edit-and-requeue":
            page.locator("#content-main").get_by_role("link", name="Edit and requeue").click()
            page.locator(".qa-form textarea").first.fill("999")
            page.get_by_role("button", name="Show the difference").click()
            page.wait_for_selector(".qa-diff")
    elif name in ("jobs", "job"):
        page.goto(urljoin(address, JOBS + ("?q=send_whatsapp" if name == "job" else "")))
        if name == "job":
            page.locator("#result_list tbody th a").first.click()
            page.wait_for_selector(".qa-record")
    elif name in _PLAIN:
        page.goto(urljoin(address, f"/admin/queueadmin/{_PLAIN[name]}"))
    elif name == "health":
        page.goto(urljoin(address, "/health/"))
    elif name == "requeue-operation":
        open_operation(page, address)
    else:
        page.goto(urljoin(address, "/admin/queueadmin/failuregroup/"))
        page.locator("#result_list tbody th a").first.click()
        page.wait_for_selector(".qa-matrix")
        if name == "requeue-group":
            page.locator("#content-main").get_by_role("link", name=re.compile("^Requeue")).click()
        if name == "change-group":
            page.locator("#content-main").get_by_role("link", name="Change and requeue").click()
        if name == "resolve-group":
            page.locator("#content-main").get_by_role("button", name="Resolve").click()
    # Not "networkidle": some pages go on asking.
    page.wait_for_load_state("load")


def open_operation(page: Page, address: str) -> None:
    """Open the newest requeue operation; begin one, for tomorrow, if there is none."""
    operations = urljoin(address, "/admin/queueadmin/requeueoperation/")
    page.goto(operations)
    if page.locator("#result_list").count() == 0:
        page.goto(urljoin(address, LETTERS))
        page.locator("input.action-select").first.check()
        page.select_option("select[name=action]", "requeue_guarded")
        page.locator("button[name=index]").first.click()
        page.fill("[name=name]", "WhatsApp outage")
        page.fill("[name=reason]", "The provider says that it is over.")
        page.fill("[name=start_at]", "2100-01-01T06:00")
        page.get_by_role("button", name="Preview").click()
        page.get_by_role("button", name="Start").click()
        page.wait_for_selector(".qa-progress")
        return
    page.locator("#result_list tbody th a").first.click()
    page.wait_for_selector(".qa-progress")
