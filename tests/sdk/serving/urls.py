"""The URLs of a Django project; a test fills them."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
