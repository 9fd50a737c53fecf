"""How much memory this process uses, and what `memory_limit="512MB"` means."""

import os
import re
import sys
from pathlib import Path

UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?", re.IGNORECASE)
_STATM = Path("/proc/self/statm")


def parse_size(size: str | int) -> int:
    """Return bytes: `"512MB"` is 512 million, `"512MiB"` is 536,870,912. Raises ValueError."""
    found = _SIZE.fullmatch(str(size).strip())
    bytes_ = int(float(found[1]) * UNITS[(found[2] or "").lower()]) if found else 0
    if bytes_ <= 0:
        raise ValueError(f'a size is a number with a unit, as in "512MB" or "1.5GiB", not {size!r}')
    return bytes_


def resident_bytes() -> int:
    """Return the resident set size of this process. Where there is no /proc: the largest it has been."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource  # Windows has neither

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
