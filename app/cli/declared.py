"""The queues and schedules that a program declares on its Sluice object: `--app module:sluice`."""

import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from app.cli.failures import REFUSED, Failure

if TYPE_CHECKING:
    from sluice_client import Sluice, SyncSluice


def declared(place: str) -> dict[str, Any]:
    """Import the module from the current directory, and return the sections that it declares. What the module itself raises is
    raised; nothing is started. Raises Failure."""
    from sluice_client import DefinitionError

    sluice = _found(place)
    try:
        for definition in sluice.registry:
            definition.check_types()  # here a forward reference that leads nowhere is found before a task is enqueued
    except DefinitionError as error:
        raise Failure(f"{place}: {error}", REFUSED) from None
    sections = sluice.declared.document()
    if not sections:
        raise Failure(f"{place} declares nothing: use sluice.queue(...) and sluice.schedule(...)", REFUSED)
    for section, definitions in sections.items():
        for name, definition in definitions.items():
            try:
                json.dumps(definition)
            except (TypeError, ValueError) as error:
                raise Failure(f"{place}: {section}/{name}: {error}", REFUSED) from None
    return sections


def merged(document: dict[str, Any], sections: dict[str, Any], file: str, place: str) -> dict[str, Any]:
    """Return the document of a file with the sections of a program. Raises Failure for what both define."""
    whole = dict(document)
    for section, definitions in sections.items():
        both = sorted(definitions.keys() & (document.get(section) or {}).keys())
        if both:
            raise Failure(f"{section}/{both[0]} is defined in {file} and in {place}: keep one of them", REFUSED)
        whole[section] = {**(document.get(section) or {}), **definitions}
    return whole


def _found(place: str) -> "Sluice | SyncSluice":
    from sluice_client import Sluice, SyncSluice

    name, _, attributes = place.partition(":")
    if not attributes or not all(part.isidentifier() for part in name.split(".")):
        raise Failure(f"--app {place}: write a module and a name in it, as in shop.tasks:sluice", REFUSED)
    sys.path.insert(0, os.getcwd())  # where `python -m` would find it
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Failure(f"--app {place}: {name} cannot be imported: {error}", REFUSED) from None
        raise Failure(
            f"--app {place}: there is no module {error.name} in {os.getcwd()} or installed", REFUSED
        ) from None
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise Failure(f"--app {place}: {name} has no {attributes}", REFUSED)
        found = getattr(found, attribute)
    if not isinstance(found, Sluice | SyncSluice):
        raise Failure(f"--app {place}: {attributes} is no Sluice, but {type(found).__name__}", REFUSED)
    return found
