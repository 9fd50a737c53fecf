"""Annotations as they were written: since Python 3.14 they are evaluated when read, and may name what does not exist yet."""

import inspect
import sys
from collections.abc import Callable
from typing import Any


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function; names that do not exist yet are left as they are."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(fn, annotation_format=Format.FORWARDREF)
    return inspect.signature(fn)


def annotations_of(cls: type[Any]) -> dict[str, Any]:
    """Return the annotations of a class itself, without those of its bases."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        return get_annotations(cls, format=Format.FORWARDREF)
    return inspect.get_annotations(cls)
