"""Pictures of products: checked when they come, resized by a job, shown re-encoded.

What is shown is always a JPEG we encoded ourselves: whatever else was in the file, text,
code or places, is not. Size and kind are read from the header before a pixel is decoded.
"""

import io
import logging
import uuid
from typing import BinaryIO

from django.core.files.base import ContentFile
from django.db import transaction
from django.utils.translation import gettext as _
from PIL import Image, ImageOps, UnidentifiedImageError

from queueadmin.models.job import subject_key

from . import fetching
from .exceptions import PictureRefused
from .models import Picture, PictureState, Product

logger = logging.getLogger(__name__)

MAX_BYTES = 5_000_000
MAX_PIXELS = 40_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
#: Longest side of what is shown in lists and on its own.
SMALL, LARGE = 160, 800
QUALITY = 82


def add(product: Product, file: BinaryIO) -> Picture:
    """Keep a picture and enqueue its resizing.

    Raises:
        PictureRefused: it is too large, or no picture of a kind we take.
    """
    content = file.read(MAX_BYTES + 1)
    require_picture(content)
    with transaction.atomic():
        picture = Picture(product=product)
        _keep(picture, content)
        picture.save()
        _enqueue_thumbnails(picture)
    return picture


def add_from(product: Product, url: str) -> Picture:
    """Enqueue the fetching of a picture from an address."""
    from .actors import fetch_picture

    with transaction.atomic():
        picture = Picture.objects.create(product=product, source_url=url)
        fetch_picture.send_with_options(args=(picture.pk,), subject=subject_key(product))
    return picture


def fetch(picture_id: int) -> None:
    """Fetch a picture from its address, unless that was done.

    Raises:
        PictureUnreachable: the server is away.
    """
    picture = Picture.objects.get(pk=picture_id)
    if picture.original or picture.state != PictureState.WAITING:
        return
    try:
        content = fetching.fetch(picture.source_url, max_bytes=MAX_BYTES)
        require_picture(content)
    except PictureRefused as refusal:
        _refuse(picture, refusal)
        return
    with transaction.atomic():
        _keep(picture, content)
        picture.save(update_fields=["original"])
        _enqueue_thumbnails(picture)


def make_thumbnails(picture_id: int) -> None:
    """Resize a picture, unless that was done; a second run writes the same again."""
    picture = Picture.objects.get(pk=picture_id)
    if picture.state != PictureState.WAITING:
        return
    try:
        with picture.original.open("rb") as file:
            small, large = _resized(file.read())
    except PictureRefused as refusal:
        _refuse(picture, refusal)
        # Nobody will look at it again; a second run finds the picture refused.
        picture.original.delete(save=False)
        return
    picture.small.save(_name(picture), ContentFile(small), save=False)
    picture.large.save(_name(picture), ContentFile(large), save=False)
    picture.state = PictureState.READY
    picture.save(update_fields=["small", "large", "state"])


def require_picture(content: bytes) -> None:
    """Raise PictureRefused for what is too large, or no picture of a kind we take."""
    if len(content) > MAX_BYTES:
        raise PictureRefused(
            _("The picture has more than %(most)d MB.") % {"most": MAX_BYTES // 1_000_000}
        )
    _open(content)


def _open(content: bytes) -> Image.Image:
    """Return a picture whose header is read and whose pixels are not."""
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise PictureRefused(_("This is no JPEG, PNG or WebP picture.")) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels() from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    return picture


def _too_many_pixels() -> PictureRefused:
    return PictureRefused(
        _("The picture has more than %(most)d million pixels.") % {"most": MAX_PIXELS // 1_000_000}
    )


def _resized(content: bytes) -> tuple[bytes, bytes]:
    try:
        with _open(content) as opened:
            upright = ImageOps.exif_transpose(opened)
            # Transparent pictures get a white ground, as JPEG knows no transparency.
            rgba = upright.convert("RGBA")
            ground = Image.new("RGB", rgba.size, "white")
            ground.paste(rgba, mask=rgba.getchannel("A"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise PictureRefused(_("The picture is damaged.")) from error
    return _jpeg(ground, SMALL), _jpeg(ground, LARGE)


def _jpeg(picture: Image.Image, side: int) -> bytes:
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _keep(picture: Picture, content: bytes) -> None:
    # A name of ours: what the uploader called the file says nothing here.
    picture.original.save(f"{uuid.uuid4().hex}.bin", ContentFile(content), save=False)


def _name(picture: Picture) -> str:
    return f"{picture.pk}-{uuid.uuid4().hex[:8]}.jpg"


def _refuse(picture: Picture, refusal: PictureRefused) -> None:
    logger.info("Refused picture=%s: %s", picture.pk, refusal)
    Picture.objects.filter(pk=picture.pk).update(
        state=PictureState.REFUSED, problem=str(refusal)[:300], original=""
    )


def _enqueue_thumbnails(picture: Picture) -> None:
    from .actors import make_thumbnails as job

    job.send_with_options(args=(picture.pk,), subject=subject_key(picture.product))
