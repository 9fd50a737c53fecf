"""Names that are local where a task is declared: annotations that are strings may use them."""

import sys
from typing import Any


def local_names(module: str) -> dict[str, Any]:
    """Return the local names of the innermost function of this module that is running; none at the module's top level."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}
