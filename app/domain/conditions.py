"""Strong ETags, and conditional writes over them (RFC 9110, section 13)."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from app.domain.errors import Refusal


@dataclass(frozen=True, slots=True)
class Conditions:
    if_match: tuple[str, ...] | None = None
    """The quoted ETags the caller accepts, `*` for any existing one; None without the header."""
    if_none_match_any: bool = False
    """`If-None-Match: *`: create, never replace."""

    def check(self, current: str | None) -> None:
        """Raise Refusal (etag_mismatch) unless the stored ETag (None: nothing stored) is what the caller expects."""
        if self.if_match is not None and (
            current is None or ("*" not in self.if_match and current not in self.if_match)
        ):
            found = (
                "nothing exists here yet"
                if current is None
                else f"the current ETag is {current}; fetch it and try again"
            )
            raise Refusal("etag_mismatch", f"If-Match failed: {found}")
        if self.if_none_match_any and current is not None:
            raise Refusal("etag_mismatch", f"If-None-Match: * failed: it already exists, with ETag {current}")


ANY = Conditions()


def etag_of(definition: dict[str, Any], key: bytes = b"") -> str:
    """Return a digest of its canonical JSON, quoted as in the header. Equal definitions have equal ETags on every replica.

    With a key, of up to 64 bytes, only who has it can make the ETag, so that it confirms no guess at what the definition hides.
    """
    canonical = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f'"{hashlib.blake2b(canonical.encode(), digest_size=16, key=key).hexdigest()}"'
