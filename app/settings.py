"""Every setting: its unit in its name, its default, its bounds, and one line of why.

The first of these that is given wins: a command-line option, an environment variable (`SLUICE_…`), for secrets the file
that `SLUICE_…_FILE` names, the default. An empty variable counts as not set. If settings contradict each other, Sluice
refuses to start and says what to do instead.
"""

import base64
import binascii
import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.domain.connections import DEFAULT_CONNECTIONS, MAX_CONNECTIONS, MIN_CONNECTIONS
from app.domain.ids import CHOSEN_KEY_RULE, chosen_api_key
from app.store.addresses import read_address

PREFIX = "SLUICE_"
SECRETS = ("database_url", "database_direct_url", "bootstrap_key", "encryption_key")
CLIENT_URL = "http://127.0.0.1:8080"
CLIENT_VARIABLES = {
    "SLUICE_URL": (CLIENT_URL, "The address of the Sluice that a command talks to."),
    "SLUICE_KEY": ("", "The API key that a command uses; not needed if Sluice requires none."),
}
"""Read only by the commands that talk to a running Sluice."""
LABEL_COLORS = ("red", "orange", "green", "blue", "purple", "gray")
LOOPBACK = ("127.0.0.0/8", "::1/128")

Source = Literal["default", "env", "file", "option"]


class SettingsError(Exception):
    """Invalid settings; each line says what to do."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting as it is shown to people."""

    name: str
    variable: str
    value: Any
    source: Source
    default: str
    bounds: str
    why: str

    @property
    def shown(self) -> str:
        return _words(self.value)


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return () if value.strip() == "none" else tuple(part.strip() for part in value.split(",") if part.strip())


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field(
        "127.0.0.1", min_length=1, description="The address to listen on; beyond loopback, API keys are required."
    )
    port: int = Field(8080, ge=0, le=65_535, description="The port to listen on; 0 takes a free one and logs it.")
    sqs_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="The port on which SQS clients are served; none if not set, 0 takes a free one.",
    )
    role: Literal["all", "api", "engine"] = Field(
        "all", description="What this replica does: serve the API, run the engine, or both."
    )
    database_url: SecretStr | None = Field(
        None, description="The Postgres to use; if not set, Sluice runs its own in the data directory."
    )
    database_direct_url: SecretStr | None = Field(
        None,
        description="The same database without the pooler, if SLUICE_DATABASE_URL leads through a transaction pooler.",
    )
    database_connections: int = Field(
        DEFAULT_CONNECTIONS,
        ge=MIN_CONNECTIONS,
        le=MAX_CONNECTIONS,
        description="Connections this replica opens at startup and keeps; the database must have room for those of all replicas.",
    )
    data_dir: Path = Field(Path("./.sluice"), description="Where the embedded Postgres keeps its data.")
    auth: Literal["on", "off"] | None = Field(
        None,
        description="Whether requests need an API key; off only on loopback, the default there without a bootstrap key.",
    )
    bootstrap_key: SecretStr | None = Field(
        None,
        description="The first API key, for tenant default with scope operate; a new value revokes the previous key.",
    )
    encryption_key: SecretStr | None = Field(
        None,
        description="32 bytes in base64; encrypts secrets and the content of tasks in the database. Of several, separated by"
        " commas, the first encrypts, and the others only decrypt.",
    )
    egress_allow: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)] = Field(
        None,
        description="Networks and host names that handlers may have in addition to public addresses, or none.",
    )
    public_url: str | None = Field(
        None, description="The base of the URLs that Sluice hands out; the bound address if not set."
    )
    ui: Literal["on", "off"] = Field("on", description="Whether the pages under /ui are served.")
    ui_label: str | None = Field(
        None,
        max_length=60,
        description="Stands on every page, such as production; a color from red, orange, green, blue, purple or gray may "
        "follow a colon: production:red.",
    )
    metrics_open: bool = Field(False, description="Serve /metrics without an API key, for a scraper that has none.")
    max_payload_bytes: int = Field(
        1_048_576, ge=1_024, le=33_554_432, description="The largest payload of a task; a larger one gets 413."
    )
    max_definitions: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="How many queues a tenant can have, and how many handlers, named limits and schedules each.",
    )
    audit_days: int = Field(
        400,
        ge=1,
        le=36_500,
        description="How many days the audit is kept at least: who changed what. It is dropped by whole months.",
    )
    lease_seconds: float = Field(
        30.0,
        ge=5,
        le=3_600,
        description="How soon the tasks of a dead replica run again; a live one renews its leases after each third.",
    )
    max_in_flight: int = Field(
        1000, ge=1, le=10_000, description="How many calls this replica has in progress at most, across all queues."
    )
    drain_grace_seconds: float = Field(
        30.0,
        ge=0,
        le=3_600,
        description="How long a stopping replica waits for calls in progress before it cuts them off.",
    )
    schedule_grace_seconds: float = Field(
        60.0, ge=1, le=3_600, description="How late a nominal time of a schedule can fire and still count as on time."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level that is logged."
    )

    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)

    @property
    def on_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def auth_required(self) -> bool:
        if self.auth is None:
            return not (self.on_loopback and self.bootstrap_key is None)
        return self.auth == "on"

    @property
    def egress(self) -> tuple[str, ...]:
        """What is allowed in addition to public addresses."""
        if self.egress_allow is None:
            return LOOPBACK if self.on_loopback else ()
        return self.egress_allow

    @property
    def encryption_keys(self) -> tuple[bytes, ...]:
        """The first encrypts, all decrypt."""
        return _encryption_keys(self.encryption_key)

    def describe(self) -> list[Knob]:
        """Every setting with its effective value and where it comes from; secrets are hidden."""
        effective = {"auth": "on" if self.auth_required else "off", "egress_allow": ",".join(self.egress) or "none"}
        return [
            Knob(
                name,
                PREFIX + name.upper(),
                effective.get(name, _shown(name, getattr(self, name))),
                self._sources.get(name, "default"),
                _default(name, field),
                _bounds(field),
                field.description or "",
            )
            for name, field in type(self).model_fields.items()
        ]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_address(value.get_secret_value())
        return value

    @field_validator("bootstrap_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and chosen_api_key(value.get_secret_value()) is None:
            raise ValueError(f"a key must be {CHOSEN_KEY_RULE}: `echo slk_$(openssl rand -hex 24)`")
        return value

    @field_validator("encryption_key")
    @classmethod
    def _are_32_bytes(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            if all(len(key) == 32 for key in _encryption_keys(value)):
                return value
        except (binascii.Error, ValueError):
            pass
        raise ValueError("it must be 32 bytes in base64: `openssl rand -base64 32`; several are separated by commas")

    @field_validator("egress_allow")
    @classmethod
    def _are_networks_or_hosts(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for entry in value or ():
            try:
                ipaddress.ip_network(entry)
            except ValueError as error:
                if not re.fullmatch(r"(?!.*/)(?![\d.]+$)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", entry):
                    raise ValueError(f"{entry!r} is neither a network such as 10.0.0.0/8 nor a host: {error}") from None
        return value

    @field_validator("public_url")
    @classmethod
    def _is_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("it must be an http or https URL without a query, such as https://sluice.example.com")
        return value.rstrip("/")

    @field_validator("ui_label")
    @classmethod
    def _has_a_color(cls, value: str | None) -> str | None:
        text, _, color = (value or "").partition(":")
        if value is not None and (not text.strip() or (color and color not in LABEL_COLORS)):
            raise ValueError(f"it must be a text, or a text, a colon and one of {', '.join(LABEL_COLORS)}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        contradictions = []
        if self.auth == "off" and not self.on_loopback:
            contradictions.append(
                f"SLUICE_AUTH=off on {self.host} would open every queue to the network: listen on 127.0.0.1,"
                " or leave SLUICE_AUTH out and set SLUICE_BOOTSTRAP_KEY."
            )
        if self.auth == "off" and self.bootstrap_key is not None:
            contradictions.append("SLUICE_AUTH=off would ignore SLUICE_BOOTSTRAP_KEY: leave one of the two out.")
        if self.database_direct_url is not None and self.database_url is None:
            contradictions.append(
                "SLUICE_DATABASE_DIRECT_URL is set without SLUICE_DATABASE_URL: set SLUICE_DATABASE_URL to the pooler's address,"
                " or to this one if there is no pooler."
            )
        if self.role == "engine" and self.database_url is None:
            contradictions.append(
                "An engine delivers what other replicas enqueue, so a Postgres of its own would stay empty:"
                " set SLUICE_DATABASE_URL, or use the role all."
            )
        if contradictions:
            raise ValueError("\n".join(contradictions))
        return self


class SecretFiles(PydanticBaseSettingsSource):
    """`SLUICE_…_FILE` for secrets, as orchestrators mount them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(_file_variable(field_name)) if field_name in SECRETS else None
        if not path:
            return None, field_name, False
        if os.environ.get(PREFIX + field_name.upper()):
            raise SettingsError(
                [f"{PREFIX}{field_name.upper()} and {_file_variable(field_name)} are both set: set one of the two."]
            )
        try:
            return Path(path).read_text().strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise SettingsError([f"{_file_variable(field_name)}={path} cannot be read: {reason}."]) from None

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value}


def load(**options: Any) -> Settings:
    """The settings of this process. Command-line options that are None count as not given. Raises SettingsError."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError([_line(dict(problem)) for problem in error.errors()]) from None
    for name in Settings.model_fields:
        settings._sources[name] = _source(name, given)
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One line for each SLUICE_ variable that is not a setting: most likely a typo."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {_file_variable(name) for name in SECRETS}
    known |= set(CLIENT_VARIABLES)
    # Kubernetes sets these in every pod, to the addresses of services named sluice and sluice-sqs.
    services = [PREFIX + name for name in ("SERVICE_", "PORT_", "SQS_SERVICE_", "SQS_PORT_")]
    foreign = (*services, PREFIX + "TEST_")
    lines = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in known and not variable.startswith(foreign):
            close = difflib.get_close_matches(variable, known, 1)
            lines.append(f"{variable} is not a setting" + (f", did you mean {close[0]}?" if close else "."))
    return lines


def _encryption_keys(value: SecretStr | None) -> tuple[bytes, ...]:
    """Raises ValueError if one is not base64."""
    texts = [] if value is None else value.get_secret_value().split(",")
    return tuple(base64.b64decode(text.strip(), validate=True) for text in texts)


def _source(name: str, options: Mapping[str, Any]) -> Source:
    if name in options:
        return "option"
    if os.environ.get(PREFIX + name.upper()):
        return "env"
    return "file" if name in SECRETS and os.environ.get(_file_variable(name)) else "default"


def _file_variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}_FILE"


def _line(problem: dict[str, Any]) -> str:
    said = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
    if not problem["loc"]:
        return said
    name = str(problem["loc"][0])
    shown = "" if name in SECRETS else f"={problem['input']}"
    hint = ""
    if name in ("port", "sqs_port") and str(problem["input"]).startswith("tcp://"):
        service = "sluice" if name == "port" else "sluice-sqs"
        hint = f" Kubernetes set it for a service named {service}: set enableServiceLinks: false, or set the port yourself."
    return f"{PREFIX}{name.upper()}{shown}: {said[:1].lower()}{said[1:]}.{hint}"


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, SecretStr):
        if not name.startswith("database_"):
            return "***"
        hidden = re.sub(r"(?<=//)([^/@:]*):.*@", r"\1:***@", value.get_secret_value())
        return re.sub(r"(?i)([?&]\w*pass\w*=)[^&]*", r"\1***", hidden)
    return str(value) if isinstance(value, Path) else value


def _default(name: str, field: FieldInfo) -> str:
    words = {
        "auth": "off on loopback without a bootstrap key, otherwise on",
        "egress_allow": "loopback if SLUICE_HOST is, otherwise none",
    }
    if name in words:
        return words[name]
    return _words(field.default)


def _words(value: Any) -> str:
    """As you would write it in the environment."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(field: FieldInfo) -> str:
    choices = [str(choice) for choice in getattr(field.annotation, "__args__", ()) if isinstance(choice, str)]
    if choices:
        return " | ".join(choices)
    limits = {type(item).__name__: item for item in field.metadata}
    if "Ge" in limits and "Le" in limits:
        return f"{limits['Ge'].ge:,} to {limits['Le'].le:,}"
    return "true | false" if field.annotation is bool else ""
