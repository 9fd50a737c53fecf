"""How the descriptors of a process are shared out."""

import pytest

from app.edge.admission import MAX_CONNECTIONS
from app.edge.server import LEAST_DESCRIPTORS, MAX_BACKLOG, RESERVED, share_out


@pytest.mark.parametrize("limit", [LEAST_DESCRIPTORS, 1024, 4096, 20_000, 1_048_576])
@pytest.mark.parametrize("wanted", [1, 1000, 10_000])
def test_no_use_can_take_the_descriptors_of_another(limit: int, wanted: int) -> None:
    shared = share_out(limit, wanted)
    used = RESERVED + shared.backlog + shared.connections + shared.calls + shared.idle_calls
    assert used <= limit
    assert 1 <= shared.calls <= wanted
    assert shared.connections >= (limit - RESERVED) // 4 or shared.connections == MAX_CONNECTIONS
    assert shared.backlog >= 16


def test_where_there_are_enough_nobody_gets_less_than_it_wants() -> None:
    shared = share_out(1_048_576, 1000)
    assert (shared.connections, shared.backlog) == (MAX_CONNECTIONS, MAX_BACKLOG)
    assert shared.calls == shared.idle_calls == 1000
