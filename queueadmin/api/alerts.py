"""Alerts: what is the matter, and who is at it."""

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from .. import alerts
from ..models import Alert
from ..states import AlertKind
from .base import ApiViewSet, ChangedSerializer, ReasonSerializer, documented

TAG = "Alerts"


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """One trouble from its beginning to its end."""

    acknowledged_by = serializers.SerializerMethodField()

    class Meta:
        model = Alert
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "subject",
            "queue",
            "text",
            "opened_at",
            "closed_at",
            "acknowledged_at",
            "acknowledged_by",
        )
        read_only_fields = fields

    def get_acknowledged_by(self, alert: Alert) -> str | None:
        return alert.acknowledged_by.get_username() if alert.acknowledged_by else None


class AlertQuerySerializer(serializers.Serializer[Any]):
    """Which alerts."""

    state = serializers.ChoiceField(
        choices=("open", "over"), required=False, help_text="Empty for all."
    )
    kind = serializers.ChoiceField(choices=AlertKind.choices, required=False)
    queue = serializers.CharField(max_length=100, required=False)


class AlertsView(ApiViewSet):
    """Alerts."""

    verbs: ClassVar = {"list": "view_alert", "acknowledge": "acknowledge_alert"}
    serializer_class = AlertSerializer

    @documented(
        "List alerts, newest first",
        tag=TAG,
        verb="view_alert",
        query=AlertQuerySerializer,
        answer=AlertSerializer(many=True),
        finds=True,
    )
    def list(self, request: Request) -> Response:
        """Answer with a page of alerts."""
        wanted = self.query(AlertQuerySerializer)
        state = wanted.pop("state", "")
        rows = Alert.objects.filter(**wanted).select_related("acknowledged_by")
        if state:
            rows = rows.filter(closed_at__isnull=state == "open")
        return self.page(rows, AlertSerializer, "-opened_at")

    @documented(
        "Say that somebody is at an alert",
        tag=TAG,
        verb="acknowledge_alert",
        body=ReasonSerializer,
        answer=ChangedSerializer,
        finds=True,
        description="It stays open until it is back to normal. `changed` is false when somebody "
        "has said so before, or it is over.",
    )
    def acknowledge(self, request: Request, id: str) -> Response:
        """Acknowledge an alert."""
        wanted = self.body(ReasonSerializer)
        if not Alert.objects.filter(pk=id).exists():
            raise NotFound(f"There is no alert {id}.")
        return Response({"changed": alerts.acknowledge(int(id), by=self.user, **wanted)})
