"""Conditional requests: If-Match and If-None-Match as the domain's Conditions."""

import re
from typing import Annotated

from fastapi import Depends, Header

from app.domain.conditions import Conditions

_TAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_IF_MATCH = rf"^(\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*)$"


async def parse_conditions(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="Replace or delete only if the current ETag is one of these (`*`: any).",
            pattern=_IF_MATCH,
            max_length=4096,
        ),
    ] = None,
    if_none_match: Annotated[
        str | None, Header(alias="If-None-Match", description="`*`: create only, never replace.", pattern=r"^\*$")
    ] = None,
) -> Conditions:
    accepted = None
    if if_match is not None:
        accepted = ("*",) if if_match == "*" else tuple(re.findall(_TAG, if_match))
    return Conditions(accepted, if_none_match is not None)


ConditionsDep = Annotated[Conditions, Depends(parse_conditions)]
