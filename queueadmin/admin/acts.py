"""Verbs on one record: a button that says why it is disabled, a page that asks, one use case."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_protect

from .. import display
from ..exceptions import NotPermitted
from .lists import ConsoleAdmin
from .verbs import NothingForm

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.utils.functional import _StrPromise

NO_PERMISSION = gettext_lazy("You lack the permission for this.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One verb on one record.

    Args:
        name: part of its address.
        permission: what it takes.
        button: its word.
        run: calls the use case; False means that nothing was changed.
        done: what is said afterwards.
        promise: one sentence, before it is done, that says what will happen.
        form: what is asked for.
        initial: what the form holds at first, for instance what the person sees of the record.
        refusal: why it cannot be done to this record now; empty if it can.
        is_final: it cannot be undone with one press.
        asks: False for what is harmless and undone with one press.
    """

    name: str
    permission: str
    button: "_StrPromise"
    run: "Callable[[Any, dict[str, Any], User], object]"
    done: "_StrPromise"
    promise: "Callable[[Any], str]" = lambda record: ""
    form: type[forms.Form] = NothingForm
    initial: "Callable[[Any], dict[str, Any]]" = lambda record: {}
    refusal: "Callable[[Any], _StrPromise | str]" = lambda record: ""
    is_final: bool = False
    asks: bool = True


@dataclass(frozen=True, slots=True)
class Button:
    """An act as a page shows it."""

    act: Act
    url: str
    refusal: "_StrPromise | str"


class RecordAdmin(ConsoleAdmin):
    """Pages whose records have acts; `find` says what an address means."""

    acts: tuple[Act, ...] = ()

    def get_urls(self) -> list[URLPattern]:
        """Add one address for all acts."""
        view = self.admin_site.admin_view(self.do_view)
        name = f"queueadmin_{self.opts.model_name}_do"
        return [path("<str:object_id>/do/<str:name>/", view, name=name), *super().get_urls()]

    def find(self, object_id: str) -> Any:
        """Return the record of an admin address, or None."""
        if not (object_id.isascii() and object_id.isdecimal() and len(object_id) <= 18):
            return None
        return self.get_queryset_of_one().filter(pk=int(object_id)).first()

    def get_queryset_of_one(self) -> Any:
        """Return the rows among which `find` looks."""
        return self.model._default_manager.all()

    def buttons(self, request: HttpRequest, record: Any) -> dict[str, Button]:
        """Return the acts of a record by name, each with why it cannot be done now."""
        return {
            act.name.replace("-", "_"): Button(
                act,
                self.address("do", quote(record.pk), act.name),
                act.refusal(record) if self.may(request, act.permission) else NO_PERMISSION,
            )
            for act in self.acts
        }

    @method_decorator(csrf_protect)
    def do_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Ask about an act, and do it once it is confirmed."""
        act = next((act for act in self.acts if act.name == name), None)
        if act is None:
            raise Http404
        if not (self.has_view_permission(request) and self.may(request, act.permission)):
            raise PermissionDenied
        record = self.find(unquote(object_id))
        if record is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        if request.method == "POST" and ("confirmed" in request.POST or not act.asks):
            form = act.form(request.POST)
            if form.is_valid() and self._do(request, act, record, form):
                return HttpResponseRedirect(self.after(request, record))
        else:
            form = act.form(initial=act.initial(record))
        return self._ask(request, act, record, form)

    def after(self, request: HttpRequest, record: Any) -> str:
        """Return where to go when an act is done: where the button was."""
        if request.GET.get("back") == "list":
            return self.address("changelist")
        return self.address("change", quote(record.pk))

    def address(self, page: str, *args: Any) -> str:
        """Return the address of a page of this model on this site."""
        name = f"admin:queueadmin_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def _do(self, request: HttpRequest, act: Act, record: Any, form: forms.Form) -> bool:
        """Call the use case; what it finds wrong is said beside the form."""
        user: Any = request.user
        try:
            changed = act.run(record, form.cleaned_data, user)
        except NotPermitted as error:
            raise PermissionDenied from error
        except ValueError as error:
            form.add_error(None, str(error))
            return False
        if changed is False:
            text = _(
                "Nothing was changed: somebody was faster, or it had changed since you looked."
            )
            self.message_user(request, text, messages.WARNING)
        else:
            self.message_user(request, act.done, messages.SUCCESS)
        return True

    def _ask(self, request: HttpRequest, act: Act, record: Any, form: forms.Form) -> HttpResponse:
        """Answer with a page that says what will happen."""
        context = {
            **self.page_context(request, act.button),
            "act": act,
            "record": display.plain(record),
            "form": form,
            "promise": act.promise(record),
            "refusal": act.refusal(record),
            "back_url": self.after(request, record),
        }
        return TemplateResponse(request, "queueadmin/ask.html", context)

    def page_context(self, request: HttpRequest, title: Any) -> dict[str, Any]:
        """Return what every page of ours needs."""
        request.current_app = self.admin_site.name
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": title,
        }
