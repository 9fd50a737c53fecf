"""A view for Django, sync or async: `path("tasks/", sluice.django_view(secrets=[…]))`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluice_client.serving.background import BACKGROUND
from sluice_client.serving.push import Push
from sluice_client.serving.settlements import Reply, answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse

    DjangoView = Callable[[HttpRequest], HttpResponse]


def django_view(push: Push) -> DjangoView:
    """Return a view that runs the tasks that Sluice delivers to it.

    It needs no CSRF token, because Sluice's signature says who calls, and no transaction: the functions run in threads or in an
    event loop of their own, with their own database connections. Raises ImportError without Django.
    """
    from django.db import transaction
    from django.http import HttpResponse
    from django.views.decorators.csrf import csrf_exempt

    def sluice_tasks(request: HttpRequest) -> HttpResponse:
        reply = _reply(push, request)
        return HttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))

    view: DjangoView = csrf_exempt(transaction.non_atomic_requests(sluice_tasks))
    return view


def _reply(push: Push, request: HttpRequest) -> Reply:
    headers = {name.lower(): value for name, value in request.headers.items()}
    refused = push.refuse(request.method or "", headers)
    if refused is not None:
        return refused
    if not headers.get("content-length"):
        return answer(411, {"error": "a content-length is needed"})
    body = request.read(int(headers["content-length"]))  # not request.body, which DATA_UPLOAD_MAX_MEMORY_SIZE bounds
    return BACKGROUND.call(push.answer(headers, body))
