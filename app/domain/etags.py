"""Strong ETags: a digest of a definition's canonical JSON."""

import hashlib
import json
from typing import Any


def etag_of(definition: dict[str, Any]) -> str:
    """Quoted, as it stands in the header. Equal definitions have equal ETags, whoever computes them."""
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f'"{hashlib.sha256(canonical.encode()).hexdigest()[:32]}"'
