"""Pictures are checked, resized, and fetched from public addresses only."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from werkzeug import Response

from orders import fetching, pictures
from orders.exceptions import PictureRefused
from orders.models import Picture, PictureState, Product, Retailer
from queueadmin.models import Job
from queueadmin.states import JobState
from queueadmin.testing import run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings: Settings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


def photo(size: tuple[int, int] = (1200, 900), kind: str = "PNG", mode: str = "RGBA") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, "red").save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """Return a PNG of some hundred bytes that says it has 10^10 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + parts


def upload(tea: Product, client: Client, content: bytes, name: str = "tea.png") -> object:
    client.force_login(User.objects.create_superuser("admin"))
    form = {"name": tea.name, "unit": tea.unit, "price": "1", "currency": "EUR", "is_active": "on"}
    inlines = {
        f"{prefix}-{field}": "0"
        for prefix in ("pictures", "offers")
        for field in ("TOTAL_FORMS", "INITIAL_FORMS")
    }
    file = SimpleUploadedFile(name, content)
    return client.post(
        f"/admin/orders/product/{tea.pk}/change/", {**form, **inlines, "new_picture": file}
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_resized_and_shown_to_the_shop(
    tea: Product, client: Client, retailer: Retailer, kind: str
) -> None:
    assert upload(tea, client, photo(kind=kind, mode="RGB")).status_code == 302  # type: ignore[attr-defined]
    run_jobs()

    picture = Picture.objects.get()
    assert picture.state == PictureState.READY
    client.force_login(retailer.user)
    page = client.get("/orders/new/").content.decode()
    shown = client.get(f"/orders/pictures/{picture.pk}/small.jpg")
    assert f"/orders/pictures/{picture.pk}/small.jpg" in page
    assert shown.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(b"".join(shown.streaming_content))).size == (160, 120)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"GIF89a" + b"\0" * 100,
        b"\x89PNG\r\n\x1a\nnot really",
        b"<?php system($_GET['x']); ?>",
        bomb(),
        b"\xff\xd8\xff" + b"\0" * 5_000_001,
    ],
    ids=["empty", "svg", "gif", "broken", "php", "bomb", "large"],
)
def test_what_is_no_picture_is_refused_and_leaves_nothing(
    tea: Product, client: Client, content: bytes, media: Path
) -> None:
    page = upload(tea, client, content, name="../../tea.png")

    assert page.status_code == 200  # type: ignore[attr-defined]
    assert "errorlist" in page.content.decode()  # type: ignore[attr-defined]
    assert not Picture.objects.exists()
    assert not Job.objects.exists()
    assert not list(media.rglob("*.*"))


@pytest.mark.parametrize("length", ["6000001", "99999999999999999999", "-1", "x"])
def test_an_upload_that_is_too_large_is_refused_unread_whoever_sends_it(
    client: Client, length: str
) -> None:
    # To read beyond the body that is really there would be an error of the client.
    answer = client.generic(
        "POST",
        "/admin/orders/product/add/",
        b"x",
        content_type="multipart/form-data; boundary=x",
        CONTENT_LENGTH=length,
    )

    assert answer.status_code == 413


def test_a_damaged_picture_is_found_by_the_job_and_leaves_nothing(
    tea: Product, media: Path
) -> None:
    picture = pictures.add(tea, io.BytesIO(photo()[:-2000]))

    run_jobs()

    picture.refresh_from_db()
    assert (picture.state, picture.problem) == (PictureState.REFUSED, "The picture is damaged.")
    assert not list(media.rglob("*.*"))


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>.png",
        '" onerror="alert(1).png',
        "../../../evil.png",
        "\u202egnp.exe.png",
        "=cmd|' /C calc'!A0.png",
        "x" * 1_000 + ".png",
    ],
)
def test_the_name_of_an_uploaded_file_is_kept_nowhere(
    tea: Product, client: Client, media: Path, name: str
) -> None:
    assert upload(tea, client, photo(kind="PNG", mode="RGB"), name).status_code == 302  # type: ignore[attr-defined]
    run_jobs()

    assert Picture.objects.get().state == PictureState.READY
    kept = [str(path.relative_to(media)) for path in media.rglob("*")]
    html = client.get(f"/admin/orders/product/{tea.pk}/change/").content.decode()
    for hostile in ("alert", "evil", "\u202e", "cmd", "xxxx"):
        assert not any(hostile in path for path in kept)
        assert hostile not in html.split('id="content"', 1)[1].split("</main>", 1)[0]


def test_what_was_hidden_in_the_file_is_not_shown(tea: Product) -> None:
    picture = pictures.add(tea, io.BytesIO(photo(kind="JPEG", mode="RGB") + b"<script>alert"))

    run_jobs()

    picture.refresh_from_db()
    with picture.large.open("rb") as file:
        assert b"<script>" not in file.read()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png",
        "http://0x7f000001/a.png",
        "http://2130706433/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/a.png",
        "http://0.0.0.0/a.png",
        "http://224.0.0.1/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "http://user:word@example.com/a.png",
        "http:///a.png",
        "http://example.com:99999/",
        "//example.com/a.png",
    ],
)
def test_an_address_inside_or_strange_is_refused_without_a_call(tea: Product, url: str) -> None:
    picture = pictures.add_from(tea, url)

    run_jobs()

    picture.refresh_from_db()
    assert picture.state == PictureState.REFUSED
    assert picture.problem
    assert not picture.original


@pytest.fixture
def elsewhere(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """A server that counts as public."""
    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    return httpserver


def test_a_picture_of_a_public_address_is_fetched_and_resized(
    tea: Product, elsewhere: HTTPServer
) -> None:
    elsewhere.expect_request("/a.png").respond_with_data(photo(), content_type="image/png")
    picture = pictures.add_from(tea, elsewhere.url_for("/a.png"))

    run_jobs()

    picture.refresh_from_db()
    assert picture.state == PictureState.READY


def test_a_redirect_is_not_followed(tea: Product, elsewhere: HTTPServer) -> None:
    elsewhere.expect_request("/a.png").respond_with_response(
        Response(status=302, headers={"Location": "http://169.254.169.254/"})
    )
    picture = pictures.add_from(tea, elsewhere.url_for("/a.png"))

    run_jobs()

    picture.refresh_from_db()
    assert picture.state == PictureState.REFUSED


def test_no_more_is_read_than_a_picture_may_have(elsewhere: HTTPServer) -> None:
    elsewhere.expect_request("/a.png").respond_with_data(b"x" * 2000)

    with pytest.raises(PictureRefused, match="too large"):
        fetching.fetch(elsewhere.url_for("/a.png"), max_bytes=1000)


def test_what_is_packed_is_not_unpacked(tea: Product, elsewhere: HTTPServer) -> None:
    elsewhere.expect_request("/a.png").respond_with_data(
        gzip.compress(photo()), headers={"Content-Encoding": "gzip"}
    )
    picture = pictures.add_from(tea, elsewhere.url_for("/a.png"))

    run_jobs()

    picture.refresh_from_db()
    assert picture.state == PictureState.REFUSED


def test_a_server_that_is_away_is_tried_again(tea: Product, elsewhere: HTTPServer) -> None:
    elsewhere.expect_request("/a.png").respond_with_data("", status=503)
    pictures.add_from(tea, elsewhere.url_for("/a.png"))

    run_jobs()

    assert Job.objects.get(actor="fetch_picture").state == JobState.RETRYING


def test_the_connection_goes_to_the_address_that_was_checked(
    elsewhere: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = {"Host": f"pictures.example:{elsewhere.port}"}
    elsewhere.expect_request("/a.png", headers=host).respond_with_data(b"here")
    resolved = []

    def resolve(host: str, port: int, *_args: object, **_kw: object) -> list[tuple[object, ...]]:
        resolved.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    url = f"http://pictures.example:{elsewhere.port}/a.png"

    assert fetching.fetch(url, max_bytes=1000) == b"here"
    assert resolved[0] == "pictures.example"
