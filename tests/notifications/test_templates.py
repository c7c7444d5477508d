"""Every event can be told by every channel, in every language, and looked at before."""

import re

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.template.loader import get_template
from django.test import Client

from notifications import rendering, samples
from notifications.models import Event
from notifications.rendering import WhatsAppTemplate
from notifications.sandbox.providers import TEMPLATES

LANGUAGES = [code for code, _name in settings.LANGUAGES]
SUFFIXES = ("subject.txt", "email.txt", "email.html", "sms.txt", "whatsapp.txt")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("event", list(Event))
def test_every_event_has_words_in_every_language(event: Event, language: str) -> None:
    values = samples.context(event)

    letter = rendering.email(event, values, language=language, unsubscribe="https://x.example/u")
    short = rendering.sms(event, values, language=language)

    assert letter.subject
    assert "Harbour Shop" in letter.text
    assert "https://x.example/u" in letter.text
    assert "https://x.example/u" in letter.html
    assert short.text
    assert f'lang="{language}"' in letter.html
    assert ("Hallo" in letter.text) is (language == "de")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("event", [event for event in Event if event not in rendering.FREE_TEXT])
def test_every_whatsapp_template_is_approved_with_these_parameters(
    event: Event, language: str
) -> None:
    message = rendering.whatsapp(event, samples.context(event), language=language)

    assert isinstance(message, WhatsAppTemplate)
    places = set(re.findall(r"{{(\d+)}}", TEMPLATES[event.value][language]))
    assert places == {str(number) for number in range(1, len(message.parameters) + 1)}


@pytest.mark.parametrize("event", list(Event))
def test_german_words_are_not_english_ones(event: Event) -> None:
    values = samples.context(event)

    german, english = (rendering.sms(event, values, language=code).text for code in ("de", "en"))

    assert german != english


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_templates_are_files_that_a_project_may_replace(suffix: str) -> None:
    for event in Event:
        assert get_template(f"notifications/{event.value}.{suffix}")


@pytest.fixture
def anna(db: None, client: Client) -> Client:
    user = User.objects.create_user("anna", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    client.force_login(user)
    return client


def test_staff_see_every_template_before_anybody_gets_it(anna: Client) -> None:
    page = anna.get("/admin/notifications/delivery/templates/?language=de").content.decode()

    assert "Bestellung 1042 ist bestätigt" in page
    assert "{{3}} North Wholesale" in page
    html = anna.get("/admin/notifications/delivery/templates/order_confirmed/de/")
    assert "default-src 'none'" in html.headers["Content-Security-Policy"]
    assert "<table>" in html.content.decode()


def test_previews_are_for_who_may_see_deliveries(client: Client, db: None) -> None:
    client.force_login(User.objects.create_user("ben", is_staff=True))

    for path in ("templates/", "templates/order_confirmed/en/"):
        assert client.get(f"/admin/notifications/delivery/{path}").status_code == 403


@pytest.mark.parametrize("path", ["nothing/en/", "../x/", "order_confirmed/xx/"])
def test_a_preview_of_nothing_is_not_found_and_an_odd_language_is_english(
    anna: Client, path: str
) -> None:
    answer = anna.get(f"/admin/notifications/delivery/templates/{path}")

    assert answer.status_code == (200 if path.endswith("xx/") else 404)
