"""Addresses of the webhooks, and of the page to opt out."""

from django.urls import path

from . import views, webhooks

app_name = "notifications"
urlpatterns = [
    path("webhooks/whatsapp/", webhooks.whatsapp, name="whatsapp"),
    path("webhooks/sendgrid/", webhooks.sendgrid, name="sendgrid"),
    path("webhooks/sms/", webhooks.sms, name="sms"),
    path("unsubscribe/<str:token>/", views.unsubscribe, name="unsubscribe"),
]
