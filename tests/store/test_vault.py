"""The keyring: which encryption key wraps the data key, and how that changes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.store.db import Database
from app.store.vault import VaultError, fingerprint, open_vault, rewrap

pytestmark = pytest.mark.anyio
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
async def keyring(database_url: str) -> AsyncIterator[Database]:
    """Without a core, which would make a data key."""
    database = Database(database_url)
    await database.open(hold=False)
    yield database
    await database.close()


async def test_the_first_key_wraps_the_others_unwrap_and_rewrap_moves_the_data_key(keyring: Database) -> None:
    clear = await open_vault(keyring, ())
    sealed = clear.seal("hidden", "here")
    assert not clear.wrapped
    assert (await open_vault(keyring, (OLD,))).open(sealed, "here") == "hidden"
    both = await open_vault(keyring, (NEW, OLD))
    assert both.wrapped and both.open(sealed, "here") == "hidden"
    with pytest.raises(VaultError, match=f"fingerprint {fingerprint(OLD)}.* has only {fingerprint(NEW)}"):
        await open_vault(keyring, (NEW,))
    assert await rewrap(keyring, (NEW, OLD)) == fingerprint(NEW)
    assert await rewrap(keyring, (NEW, OLD)) == fingerprint(NEW)
    assert (await open_vault(keyring, (NEW,))).open(sealed, "here") == "hidden"
    with pytest.raises(VaultError, match=fingerprint(NEW)):
        await open_vault(keyring, (OLD,))
    with pytest.raises(VaultError, match="not set"):
        await rewrap(keyring, ())
    recorded = await keyring.fetch(
        "select actor, verb, noun, name, before::text, after::text from sluice.audit order by at, id"
    )
    old, new = fingerprint(OLD), fingerprint(NEW)
    assert [tuple(row) for row in recorded] == [
        ("system", "rewrap", "data_key", old, '{"wrapped_by":null}', f'{{"wrapped_by":"{old}"}}'),
        ("cli", "rewrap", "data_key", new, f'{{"wrapped_by":"{old}"}}', f'{{"wrapped_by":"{new}"}}'),
    ], "the second rewrap changed nothing"


async def test_replicas_that_bring_an_encryption_key_at_once_share_one_data_key(keyring: Database) -> None:
    vaults = await asyncio.gather(*(open_vault(keyring, (OLD,)) for _ in range(4)))
    sealed = vaults[0].seal("hidden", "here")
    assert [vault.open(sealed, "here") for vault in vaults] == ["hidden"] * 4


async def test_a_changed_keyring_is_told_from_a_missing_key(keyring: Database) -> None:
    await open_vault(keyring, (OLD,))
    await keyring.fetch("update sluice.keyring set data_key = set_byte(data_key, 40, get_byte(data_key, 40) # 1)")
    with pytest.raises(VaultError, match="was changed"):
        await open_vault(keyring, (OLD,))
