"""Parts of pages that look the same again and again: rendered once for each content, and kept.

A page of an overview is rendered anew whenever anything changes, but most of its alarms are those from before, and its charts are
of minutes that are over.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from markupsafe import Markup

MOST_KEPT = 500


class Kept:
    """In a template: `{% call kept(a, b) %}…{% endcall %}`, where what is inside depends on `a` and `b` alone."""

    def __init__(self) -> None:
        self._made: OrderedDict[bytes, Markup] = OrderedDict()

    def __call__(self, *what: Any, caller: Callable[[], Markup]) -> Markup:
        key = msgspec.msgpack.encode(what)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = caller()
            if len(self._made) > MOST_KEPT:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return made
