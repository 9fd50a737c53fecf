"""Keys made from arguments: `"welcome:{user_id}"`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any


@dataclass(frozen=True)
class Template:
    """A text with arguments by name in it, such as `{user_id}`, `{order.id}` or `{month:%Y-%m}`."""

    text: str

    def check(self, names: Collection[str]) -> None:
        """Raises ValueError if it is no template, or names something that is not among `names`."""
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"{self.text!r} is not a template: {error}") from None
        if not self.text:
            raise ValueError("a template must not be empty")
        for _, field, spec, _ in parts:
            if field is None:
                continue
            name = field.partition(".")[0].partition("[")[0]
            if not name or name.isdigit():
                raise ValueError(
                    f"{self.text!r} names no argument in {{{field}}}: write a parameter's name between the braces"
                )
            if name not in names:
                known = ", ".join(names) or "none"
                raise ValueError(f"{self.text!r} names {name}, which is not a parameter (there are: {known})")
            if spec and "{" in spec:
                raise ValueError(f"{self.text!r} has braces within braces")

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the text with the arguments in their places. Raises ValueError if one has no such attribute or format."""
        try:
            return self.text.format_map(values)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.text!r} cannot be filled in: {error}") from error
