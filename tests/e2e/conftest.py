"""One running site and one browser for all stories; a person each has their own session."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.site import PASSWORD, Site, chromium, running_site


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The running site with its database and its providers' faults."""
    directory: Path = tmp_path_factory.mktemp("site")
    with running_site(directory) as site:
        yield site


@pytest.fixture(scope="session")
def site(whole_site: Site) -> tuple[str, str]:
    """The addresses of the site and of its inbox."""
    return whole_site.address, whole_site.inbox


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def person(site: tuple[str, str], browser: Browser) -> Iterator[Callable[..., Page]]:
    """Give the page of somebody who is logged in; what the browser complains of fails the test."""
    contexts = []
    complaints: list[str] = []

    def log_in(name: str | None, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: complaints.append(said.text) if _is_bad(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if name is None:  # somebody without a log-in
            return page
        where = "/orders/" if name in ("shop", "corner", "kiosk") else "/admin/"
        page.goto(site[0] + where)
        page.fill("input[name=username]", name)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit], input[type=submit], main button")
        page.wait_for_url(f"**{where}")
        return page

    yield log_in
    for context in contexts:
        context.close()
    assert complaints == []


def _is_bad(said: Any) -> bool:
    # Browsers ask for an icon that no page names, and a refused POST is what a test wants.
    return said.type in ("error", "warning") and not said.location["url"].endswith("/favicon.ico")
