"""What most commands do: ask the service one thing, and print JSON or words."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.cli.client import Client


def do(
    ask: Callable[["Client"], Any], words: str | Callable[[Any], str], url: str, key: str | None, as_json: bool
) -> None:
    """Ask, and print the answer as JSON or `words`, which may be made from the answer. Raises Failure."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        answer = ask(client)
    if as_json:
        say_json(answer)
    else:
        print(words if isinstance(words, str) else words(answer))


def print_fields(found: dict[str, Any]) -> None:
    """Print the fields that have a value, one per line."""
    import json

    from app.cli.screen import Listing, console

    rows = [
        (name, value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False))
        for name, value in found.items()
        if value not in (None, [], {}, False, "")
    ]
    console().print(Listing(("field", "value"), rows))
