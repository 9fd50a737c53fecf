"""Conditional requests: If-Match and If-None-Match as the domain's Conditions."""

import re
from typing import Annotated

from fastapi import Depends, Header

from app.domain.conditions import Conditions
from app.domain.errors import Refusal

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_LIST = re.compile(rf"\s*{_TAG}\s*(?:,\s*{_TAG}\s*)*")


async def parse_conditions(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="Replace or delete only what still has this ETag (`*`: anything).",
            max_length=4096,
        ),
    ] = None,
    if_none_match: Annotated[
        str | None, Header(alias="If-None-Match", description="`*`: create, never replace.", max_length=4096)
    ] = None,
) -> Conditions:
    accepted: tuple[str, ...] | None = None
    if if_match is not None:
        if if_match.strip() == "*":
            accepted = ("*",)
        elif _LIST.fullmatch(if_match):
            accepted = tuple(re.findall(_TAG, if_match))
        else:
            raise Refusal("malformed", 'If-Match must be * or ETags in double quotes, as in "abc"')
    if if_none_match is not None and if_none_match.strip() != "*":
        raise Refusal("malformed", "If-None-Match can only be * here")
    return Conditions(accepted, if_none_match is not None)


ConditionsDep = Annotated[Conditions, Depends(parse_conditions)]
