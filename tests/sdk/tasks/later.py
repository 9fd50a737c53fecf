"""A module whose annotations are strings, and name what comes after them."""

from __future__ import annotations

from dataclasses import dataclass

from sluice_client import Job, Sluice

sluice = Sluice("http://127.0.0.1:1")


@sluice.task(queue="q")
def takes_later(one: Later) -> None: ...


@dataclass
class Later:
    n: int


def twice(n: int) -> int:
    return 2 * n


def other(n: int) -> int:
    return n


class Audit(Job, queue="q", sluice=None):
    def run(self) -> None: ...
