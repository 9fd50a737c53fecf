"""Types of pydantic and msgspec: their library turns them to JSON and back, and says what is wrong.

Neither is imported unless a program has imported it: a type of theirs cannot be there before.
"""

import json
import re
import sys
from collections.abc import Callable
from typing import Any, get_origin

from sluice_client.tasks.codecs import EVERYTHING, JSON, Codec
from sluice_client.tasks.faults import Faults, fault, within

_PYDANTIC = frozenset({"pydantic", "pydantic_core", "annotated_types"})
_PATH = re.compile(r"(?P<detail>.*?)(?: - at `(?:key in )?(?P<path>\$[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class Foreign(Codec):
    """A type of a library. Reading and writing are the library's own, by the rules it has for JSON."""

    def __init__(
        self,
        noun: str,
        kinds: frozenset[str],
        cls: type[Any] | None,
        write: Callable[[Any], Any],
        read: Callable[[str, str, Faults], Any],
    ) -> None:
        self.noun, self.kinds = noun, kinds
        self._class, self._write, self._read = cls, write, read

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if self._class is not None and type(value) is not self._class:
            self.miss(value, at, faults)
            return None
        try:
            written = self._write(value)
        except (TypeError, ValueError) as error:
            fault(faults, at, f"cannot become JSON: {error}")
            return None
        found = len(faults)
        JSON.encode(written, at, faults)
        if len(faults) == found:
            self._read(json.dumps(written), at, faults)  # what the other side would refuse is refused here
        return written

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        found = len(faults)
        JSON.decode(value, at, faults)
        return self._read(json.dumps(value), at, faults) if len(faults) == found else None


def is_of_library(cls: type[Any]) -> bool:
    """Whether a library makes the fields of this class."""
    pydantic, msgspec = sys.modules.get("pydantic"), sys.modules.get("msgspec")
    return (pydantic is not None and issubclass(cls, pydantic.BaseModel)) or (
        msgspec is not None and issubclass(cls, msgspec.Struct)
    )


def codec_of_library(annotation: Any) -> Codec | None:
    """Return the codec of a type that belongs to pydantic or msgspec, or None."""
    cls = get_origin(annotation) or annotation
    if isinstance(cls, type):
        pydantic, msgspec = sys.modules.get("pydantic"), sys.modules.get("msgspec")
        if pydantic is not None and (issubclass(cls, pydantic.BaseModel) or "__pydantic_validator__" in vars(cls)):
            return _of_pydantic(annotation, cls)
        if msgspec is not None and issubclass(cls, msgspec.Struct):
            return _of_msgspec(annotation, cls)
    return None


def codec_of_metadata(annotation: Any) -> Codec | None:
    """Return the codec of an Annotated type whose metadata a library has a meaning for, such as Field(gt=0), or None."""
    for metadata in annotation.__metadata__:
        library = type(metadata).__module__.partition(".")[0]
        if library in _PYDANTIC and "pydantic" in sys.modules:
            return _of_pydantic(annotation, None)
        if library == "msgspec":
            return _of_msgspec(annotation, None)
    return None


def _of_pydantic(annotation: Any, cls: type[Any] | None) -> Codec:
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(annotation)

    def write(value: Any) -> Any:
        return adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings="error")

    def read(text: str, at: str, faults: Faults) -> Any:
        try:
            return adapter.validate_json(text)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_context=False, include_input=False):
                where = at
                for step in one["loc"]:
                    where = within(where, step)
                fault(faults, where, one["msg"])
            return None

    return Foreign(_name(annotation), _kinds(cls), cls, write, read)


def _of_msgspec(annotation: Any, cls: type[Any] | None) -> Codec:
    import msgspec

    decoder = msgspec.json.Decoder(annotation)

    def write(value: Any) -> Any:
        return msgspec.to_builtins(value, str_keys=True)

    def read(text: str, at: str, faults: Faults) -> Any:
        try:
            return decoder.decode(text)
        except msgspec.MsgspecError as error:
            found = _PATH.fullmatch(str(error))
            where = at
            for name, index in _STEP.findall((found and found["path"]) or ""):
                where = within(where, name or index)
            fault(faults, where, found["detail"] if found else str(error))
            return None

    return Foreign(_name(annotation), _kinds(cls), cls, write, read)


def _kinds(cls: type[Any] | None) -> frozenset[str]:
    config = getattr(cls, "__struct_config__", None)
    if cls is None or (hasattr(cls, "__pydantic_root_model__") and cls.__pydantic_root_model__):
        return EVERYTHING
    return frozenset({"list" if config is not None and config.array_like else "object"})


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
