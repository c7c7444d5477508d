"""Addresses of the site."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from django.views.generic import RedirectView

from queueadmin.metrics import metrics

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="orders:list"), name="home"),
    path("admin/", admin.site.urls),
    path("accounts/login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("orders/", include("orders.urls")),
    path("vendor/", include("orders.vendor_urls")),
    path("messages/", include("notifications.urls")),
    path("api/v1/", include("queueadmin.api.urls")),
    path("health/", include("queueadmin.health")),
    path("metrics", metrics),
]
