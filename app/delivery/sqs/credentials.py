"""Credentials of AWS: those that a definition gives, or those that the replica finds in the usual chain.

The chain (environment, shared files, web identity, container, instance) is botocore's, which comes with the extra `aws`. It reads
files and asks servers, so it runs in a thread. Temporary credentials are fetched anew before they end, by botocore; all others are
looked up again every minute, so that a changed file counts.
"""

import asyncio
import importlib
import importlib.util
import time
from functools import cache
from typing import Any, Protocol

from app.domain.bridges import AwsCredentials
from app.domain.errors import Refusal

KEPT_SECONDS = 60.0
FAILED_SECONDS = 5.0
"""How long a failure is told again before the chain is asked again."""
MISSING = "without credentials, those of the replica are used, which needs botocore: install sluice-queue[aws], or send credentials"


class CredentialsError(Exception):
    """Raised if there are no credentials; the message says why, without naming any."""


class Credentials(Protocol):
    """Where the credentials of a client come from."""

    def known(self) -> AwsCredentials | None:
        """Return them without waiting; None if they must be fetched first."""

    async def get(self) -> AwsCredentials:
        """Return them. Raises CredentialsError."""


class Given:
    """Credentials from a definition."""

    def __init__(self, credentials: AwsCredentials) -> None:
        self._credentials = credentials

    def known(self) -> AwsCredentials | None:
        return self._credentials

    async def get(self) -> AwsCredentials:
        return self._credentials


class Chain:
    """The usual chain, for one process. Whoever asks while it is being read waits for the same answer."""

    def __init__(self) -> None:
        self._found: AwsCredentials | None = None
        self._problem = ""
        self._until = 0.0
        self._source: Any = None
        """What botocore found, if it renews it by itself."""
        self._reading: asyncio.Task[None] | None = None

    def known(self) -> AwsCredentials | None:
        return self._found if time.monotonic() < self._until else None

    async def get(self) -> AwsCredentials:
        if time.monotonic() >= self._until:
            reading = self._reading
            if reading is None or reading.get_loop() is not asyncio.get_running_loop():
                reading = self._reading = asyncio.get_running_loop().create_task(self._read())
            await asyncio.shield(reading)
        if self._found is None:
            raise CredentialsError(self._problem)
        return self._found

    async def _read(self) -> None:
        try:
            self._found = await asyncio.to_thread(self._look)
            self._problem = "no credentials were found in the usual AWS chain"
        except Exception as error:  # a chain of many sources, each with its own errors
            self._found = None
            failed = f"the usual AWS chain of credentials failed: {type(error).__name__}"
            # a replica that has botocore may have saved the definition
            self._problem = MISSING if _is_missing() else failed
        finally:
            self._until = time.monotonic() + (FAILED_SECONDS if self._found is None else KEPT_SECONDS)
            self._reading = None

    def _look(self) -> AwsCredentials | None:
        source = self._source or importlib.import_module("botocore.session").Session().get_credentials()
        self._source = source if hasattr(source, "refresh_needed") else None
        if source is None:
            return None
        frozen = source.get_frozen_credentials()
        return AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token)


@cache
def chain() -> Chain:
    return Chain()


def credentials_of(given: AwsCredentials | None) -> Credentials:
    return chain() if given is None else Given(given)


def _is_missing() -> bool:
    return importlib.util.find_spec("botocore") is None


def require_chain(where: str = "/credentials") -> None:
    """Check that the chain can be read here. Raises Refusal (bridge_unavailable)."""
    if _is_missing():
        raise Refusal("bridge_unavailable", f"{where}: {MISSING}")
