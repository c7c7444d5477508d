"""Notes that name somebody, as in "@anna, do you know this shop?": they find it, and are told.

Whoever may see the record finds it under *mentions*, and is told by e-mail. The mail is a job,
enqueued in the transaction of the note: a note that is rolled back tells nobody, and a mail
server that is away delays no page.
"""

import re
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.mail import send_mail
from django.utils.translation import gettext as _
from dramatiq import Message, get_broker

from .models import GroupNote, Note
from .resolver import console_address, get_resolver

if TYPE_CHECKING:
    from django.contrib.auth.models import User

ACTOR = "queueadmin.tell_mentioned"
QUEUE = "alerts"
#: Names of one note that are looked up, so that a note cannot become a mass mailing.
MOST = 20
# What Django's user names are made of, after a blank or bracket: not within an address.
_NAME = re.compile(r"(?<![\w@.+-])@([\w.@+-]{1,150})")
_SEEN_BY = {"letter": "view_deadletter", "group": "view_failuregroup"}


def named_in(text: str, *, verb: str) -> "list[User]":
    """Return the active staff whom a text names and who may do `verb`."""
    names: dict[str, None] = {}
    for found in _NAME.findall(text)[:MOST]:
        # "Ask @anna." means anna; but a name may end with a dot.
        names |= dict.fromkeys((found, found.rstrip(".-+@")))
    if not names:
        return []
    model = get_user_model()
    people = model._default_manager.filter(
        **{f"{model.USERNAME_FIELD}__in": list(names)}, is_active=True, is_staff=True
    )
    resolver = get_resolver()
    return [person for person in people.order_by("pk") if resolver.may(person, verb)]


def announce(note: Note | GroupNote, *, by: "User | None") -> "list[User]":
    """Keep whom a new note names, and have them told after commit; return them.

    Call it in the transaction that adds the note. Who names themselves is not told.
    """
    kind = "letter" if isinstance(note, Note) else "group"
    people = named_in(note.text, verb=_SEEN_BY[kind])
    note.mentioned.set(people)
    for person in people:
        if by is None or person.pk != by.pk:
            # Written out, because a web process need not have imported the actor.
            message: Message[None] = Message(QUEUE, ACTOR, (kind, note.pk, person.pk), {}, {})
            get_broker().enqueue(message)
    return people


def facts(note: Note | GroupNote, people: "list[User]") -> dict[str, Any]:
    """Return what the audit trail keeps of a new note."""
    named = {"mentioned": [person.get_username() for person in people]} if people else {}
    return {"note": note.pk, **named}


def tell(kind: str, note_id: int, user_id: int) -> bool:
    """Mail somebody the note that names them; False when there is nobody to tell any more."""
    notes = Note.objects if kind == "letter" else GroupNote.objects
    note: Note | GroupNote | None = notes.filter(pk=note_id).first()
    person = get_user_model()._default_manager.filter(pk=user_id, is_active=True).first()
    if note is None or person is None or not getattr(person, "email", ""):
        return False
    if not get_resolver().may(person, _SEEN_BY[kind]):
        return False
    record = note.dead_letter if isinstance(note, Note) else note.group
    address = console_address(f"{record._meta.model_name}_change", record.pk)
    facts = {"who": _one_line(note.author_name), "record": _one_line(record)}
    send_mail(
        _("%(who)s mentioned you: %(record)s") % facts,
        f"{note.text}\n\n-- \n{_one_line(record)}\n{address}",
        None,
        [person.email],
    )
    return True


def _one_line(text: object) -> str:
    """Return a text as a header may carry it."""
    return " ".join(str(text).split())[:150]
