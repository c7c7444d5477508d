"""Assignment rules: who gets what fails, before anybody looks."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import audit, display
from ..models import AssignmentRule
from ..resolver import get_resolver
from .lists import ConsoleAdmin

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    Form = forms.ModelForm[AssignmentRule]
else:
    Form = forms.ModelForm

TARGET = "assignment rule"


class RuleForm(Form):
    """What a rule matches, and whom it names."""

    class Meta:
        model = AssignmentRule
        fields = ("position", "queue", "actor", "error_class", "assignee", "due_hours", "is_active")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        anything = _("Empty for any; “mail*” for what begins with “mail”.")
        for name in ("queue", "actor", "error_class"):
            self.fields[name].help_text = anything
        people = get_user_model()._default_manager.filter(is_active=True, is_staff=True)
        self.fields["assignee"].queryset = people.order_by("pk")  # type: ignore[attr-defined]

    def clean_assignee(self) -> "User":
        """Refuse an owner who could not open what the rule gives."""
        person: User = self.cleaned_data["assignee"]
        if not get_resolver().may(person, "view_deadletter"):
            raise forms.ValidationError(_("This person may not see dead letters."))
        return person


class AssignmentRuleAdmin(ConsoleAdmin):
    """The rules in their order; each change is audited."""

    form = RuleForm
    change_form_template = "queueadmin/change_form.html"
    list_display = ("position", "matches", "assignee", "due_hours", "is_active")
    list_display_links = ("matches",)
    list_select_related = ("assignee",)
    ordering = ("position", "id")
    sortable_by = ()
    empty_text = _(
        "No rule yet. “Add assignment rule” says, for instance, that what fails in the queue "
        "“sms-notifications” is Anna's, and due after 24 hours. It applies to what fails from "
        "then on."
    )

    @admin.display(description=_("what fails"))
    def matches(self, rule: AssignmentRule) -> str:
        """Queue, job and error of a rule."""
        return display.plain(rule)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add_assignmentrule")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change_assignmentrule")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "delete_assignmentrule")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            self._record(request, "change rule" if change else "add rule", [obj])

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.delete_queryset(request, AssignmentRule.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        with transaction.atomic():
            self._record(request, "delete rule", list(queryset.select_related("assignee")))
            super().delete_queryset(request, queryset)

    def _record(self, request: HttpRequest, verb: str, rules: list[AssignmentRule]) -> None:
        user: Any = request.user
        for rule in rules:
            facts: dict[str, Any] = {
                "matches": str(rule),
                "to": rule.assignee.get_username(),
                "position": rule.position,
                "due_hours": rule.due_hours,
                "is_active": rule.is_active,
            }
            audit.record(verb, TARGET, [rule.pk], by=user, **facts)
