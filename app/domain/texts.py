"""Texts from callers: bounded, and storable in Postgres."""

from typing import Annotated

from msgspec import Meta

from app.domain.errors import FieldError

MAX_DESCRIPTION = 1000
Description = Annotated[str, Meta(max_length=MAX_DESCRIPTION)]


def text_problem(text: str, longest: int, *, empty: bool = False) -> str | None:
    if not text and not empty:
        return "must not be empty"
    if len(text) > longest:
        return f"is longer than {longest} characters"
    if "\x00" in text:
        return "must not contain the NUL character"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "must not contain a lone surrogate"
    return None


def header_text_problem(text: str, longest: int) -> str | None:
    """For a text that travels in a header, where control characters could start a header of their own."""
    problem = text_problem(text, longest)
    if problem is None and not text.isprintable():
        return "must not contain control characters"
    return problem


def check_text(text: str, where: str, longest: int, *, empty: bool = False) -> list[FieldError]:
    problem = text_problem(text, longest, empty=empty)
    return [] if problem is None else [FieldError(where, problem)]
