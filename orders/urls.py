"""Addresses of the shop pages."""

from django.urls import path

from . import views

app_name = "orders"
urlpatterns = [
    path("", views.order_list, name="list"),
    path("new/", views.place_order, name="new"),
    path("pictures/<int:picture_id>/<str:size>.jpg", views.picture, name="picture"),
    path("<int:order_id>/", views.order_detail, name="detail"),
    path("<int:order_id>/cancel/", views.cancel_order, name="cancel"),
]
