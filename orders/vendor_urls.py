"""The address of the links vendors get."""

from django.urls import path

from . import vendor_views

app_name = "vendors"
urlpatterns = [path("<str:token>/", vendor_views.request_page, name="request")]
