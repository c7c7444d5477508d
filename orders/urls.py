"""Addresses of the shop pages."""

from django.urls import path

from . import shop_views, views

app_name = "orders"
urlpatterns = [
    path("", views.order_list, name="list"),
    path("new/", views.place_order, name="new"),
    path("credit/", shop_views.credit, name="credit"),
    path("settings/", shop_views.settings, name="settings"),
    path("<int:order_id>/delivery/", shop_views.booking, name="booking"),
    path("pictures/<int:picture_id>/<str:size>.jpg", views.picture, name="picture"),
    path("<int:order_id>/", views.order_detail, name="detail"),
    path("<int:order_id>/cancel/", views.cancel_order, name="cancel"),
]
