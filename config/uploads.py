"""Refuses uploads that are larger than anything the site takes, before a byte of them is read.

Django reads a form to its end, files into temporary ones, before any view asks who sends it:
that is where its CSRF token is. Other bodies are read by views, which look at their size first.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

#: A picture of 5 MB, and the form around it.
MAX_BYTES = 6_000_000


def refuse_large_uploads(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Answer 413 to a form with files that has too many bytes."""

    def middleware(request: HttpRequest) -> HttpResponse:
        # A body whose length is not named is empty to Django.
        length = request.META.get("CONTENT_LENGTH") or "0"
        is_form = request.content_type == "multipart/form-data"
        if is_form and (not length.isdecimal() or int(length) > MAX_BYTES):
            return HttpResponse(
                f"At most {MAX_BYTES:,} bytes are taken.", status=413, content_type="text/plain"
            )
        return get_response(request)

    return middleware
