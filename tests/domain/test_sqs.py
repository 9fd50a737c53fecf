"""Queues as SQS has them: what is said by the definition, and what beside it."""

from dataclasses import replace

import pytest
from msgspec import structs

from app.domain.callbacks import Callback, Callbacks
from app.domain.limits import QueueKey
from app.domain.queues import QueueDefinition
from app.domain.retries import MAX_ATTEMPTS
from app.domain.sqs import (
    NO_LIMIT,
    QueueAttributes,
    Redrive,
    attempts_allowed,
    decode_attributes,
    encode_attributes,
    is_fifo,
    new_definition,
    redrive_of,
    with_redrive,
)


def test_a_new_fifo_queue_orders_by_group_and_keeps_idempotency_keys_for_five_minutes() -> None:
    definition = new_definition("orders.fifo", None)
    assert definition.key == QueueKey(ordered=True, required=True)
    assert definition.idempotency_seconds == 300.0
    assert is_fifo("orders.fifo", definition.key)
    assert not definition.check()


def test_a_new_standard_queue_has_the_defaults_of_a_queue_for_pull_workers() -> None:
    definition = new_definition("orders", None)
    assert structs.replace(definition, retry=QueueDefinition().retry) == QueueDefinition()
    assert not is_fifo("orders", definition.key)


@pytest.mark.parametrize(
    ("name", "key", "fifo"),
    [
        ("a.fifo", QueueKey(ordered=True), True),
        ("a.fifo", QueueKey(max_concurrency=1), False),
        ("a.fifo", None, False),
        ("a", QueueKey(ordered=True), False),
    ],
)
def test_a_fifo_queue_has_the_name_and_ordered_keys(name: str, key: QueueKey | None, fifo: bool) -> None:
    assert is_fifo(name, key) is fifo


def test_a_redrive_policy_is_the_dead_letter_callback_and_the_number_of_attempts() -> None:
    definition = new_definition("orders", Redrive("orders-dead", 3))
    assert definition.callbacks.dead == Callback("orders-dead", "payload")
    assert definition.retry.max_attempts == 3
    assert redrive_of(definition) == Redrive("orders-dead", 3)
    assert redrive_of(with_redrive(definition, None)) is None


def test_a_callback_with_a_summary_is_no_redrive_policy_and_survives_the_removal_of_one() -> None:
    callbacks = Callbacks(dead=Callback("alerts"), succeeded=Callback("next"))
    definition = QueueDefinition(callbacks=callbacks)
    assert redrive_of(definition) is None
    assert with_redrive(definition, None).callbacks == callbacks
    assert with_redrive(definition, Redrive("dead", 2)).callbacks == Callbacks(
        dead=Callback("dead", "payload"), succeeded=Callback("next")
    )


def test_without_a_dead_letter_queue_a_message_is_received_any_number_of_times() -> None:
    definition = new_definition("orders", None)
    assert attempts_allowed(definition, QueueAttributes()) == NO_LIMIT
    assert attempts_allowed(definition, None) == MAX_ATTEMPTS
    assert attempts_allowed(with_redrive(definition, Redrive("dead", MAX_ATTEMPTS)), QueueAttributes()) == MAX_ATTEMPTS
    fewer = structs.replace(definition, retry=replace(definition.retry, max_attempts=5))
    assert attempts_allowed(fewer, QueueAttributes()) == 5


def test_attributes_are_stored_without_defaults_and_read_back() -> None:
    given = QueueAttributes(delay_seconds=5, policy='{"Statement": []}', tags={"team": "a"})
    assert decode_attributes(encode_attributes(given)) == given
    assert encode_attributes(QueueAttributes()) == "{}"
    assert decode_attributes(None) is None
    assert decode_attributes('{"delay_seconds": 5, "of_a_newer_release": true}') == QueueAttributes(delay_seconds=5)
