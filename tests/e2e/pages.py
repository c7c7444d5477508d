"""The pages that are looked at: by the accessibility checker and for the pictures."""

from urllib.parse import urljoin

from playwright.sync_api import Page

LETTERS = "/admin/queueadmin/deadletter/"
JOBS = "/admin/queueadmin/job/"

#: Name of each staff page -> how to get there.
STAFF = ("dead-letters", "dead-letter", "requeue", "jobs", "job", "audit", "recovery-runs")


def open_staff_page(page: Page, address: str, name: str) -> None:
    """Open one of STAFF as the person who is logged in."""
    if name in ("dead-letters", "dead-letter", "requeue"):
        page.goto(urljoin(address, LETTERS))
        if name != "dead-letters":
            page.locator("#result_list tbody th a").first.click()
        if name == "requeue":
            page.get_by_role("link", name="Requeue").or_(
                page.get_by_role("button", name="Requeue")
            ).first.click()
    elif name in ("jobs", "job"):
        page.goto(urljoin(address, JOBS))
        if name == "job":
            page.locator("#result_list tbody th a", has_text="send_whatsapp").last.click()
            page.wait_for_selector(".qa-record")
    else:
        model = {"audit": "auditentry", "recovery-runs": "recoveryrun"}[name]
        page.goto(urljoin(address, f"/admin/queueadmin/{model}/"))
    page.wait_for_load_state("networkidle")
