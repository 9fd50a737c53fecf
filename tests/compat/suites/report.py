"""What the suites say of the SQS wire, as a page."""

from tests.compat.suites.running import KOMBU, MOTO, ROOT, Outcome

PAGE = ROOT / "docs" / "reference" / "sqs-suites.md"
REGIONS = "Queues of an account are the same in every region; the test expects each region to have its own."
GROUPS = "Sluice gives out one message of a group at a time; the test receives two of one group in one answer, as SQS allows."
TWICE = "The test expects 404 where a message is deleted a second time, which moto's tests rule out: see below."
WHY = {
    "test_create_queues_in_multiple_region": REGIONS,
    "test_receive_messages_with_message_group_id": GROUPS,
    "test_fanout": "The fanout goes through SNS, which is another service.",
    "test_ack_invalid_receipt_with_backoff[InvalidParameterValue]": TWICE,
    "test_ack_invalid_receipt_with_backoff[ReceiptHandleIsInvalid]": TWICE,
}
"""Of each test that may fail against Sluice, why."""


INTRODUCTION = """\
# SQS suites of others

Two projects have tests of SQS clients that can be run against any server. Both are run against Sluice's SQS port, without
authentication, and against moto's server, to compare. They come from the registry and are not changed, with one exception:
moto's tests expect `http://localhost:5000` in URLs of queues, and get the address of the server instead. All queues are
deleted before each of moto's tests. Tests that skip themselves, because they cannot reach into a server, are counted apart.

`make sqs-suites` runs them and writes this page.
"""

DELETED_TWICE = """\
## Two tests that exclude two others

Both suites delete a message of a standard queue a second time, and expect opposite answers:

- kombu's `test_ack_invalid_receipt_with_backoff`, with two codes: the test receives a message, deletes it with `DeleteMessage`, and
  acknowledges it, which is `DeleteMessage` with the same handle. That must be answered with status 404, as GoAws does, the server
  that kombu is tested with. The test says itself that the codes of AWS are others, and puts those into the answer.
- moto's `test_delete_message_twice_using_same_receipt_handle`: the test receives a message and deletes it twice with the same
  handle. Both must succeed.
- moto's `test_delete_message_using_old_receipt_handle`: the same, also with the handle of an earlier receive.

The requests are the same, so a server passes either the two of kombu or the two of moto. Sluice does as SQS: its reference says
that with an old handle "the request will succeed", and knows no error of `DeleteMessage` with status 404. SDKs repeat a delete
whose answer was lost, and a repeat must not be an error. With `test_fanout`, which needs SNS, 39 of 42 is therefore the most that
goes together with 148 of moto's 150; 41 of 42 would go with 146.
"""


def page(moto: Outcome, moto_by_moto: Outcome, kombu: Outcome, kombu_by_moto: Outcome) -> str:
    """Return the page: of both suites the outcome against Sluice, and against moto's server."""
    lines = [
        INTRODUCTION,
        "| suite | passed by Sluice | passed by moto's server | skipped |",
        "|---|---|---|---|",
        _row(f"moto {MOTO.version}, `test_sqs.py` and `test_sqs_message_attributes.py`", moto, moto_by_moto),
        _row(f"kombu {KOMBU.version}, `t/integration/test_sqs.py`", kombu, kombu_by_moto),
        "",
    ]
    failed = [(suite, name) for suite, found in (("moto", moto), ("kombu", kombu)) for name in found.failed]
    if failed:
        lines += ["## What fails, and why", "", "| suite | test | why |", "|---|---|---|"]
        lines += [f"| {suite} | `{name}` | {WHY.get(name, 'not yet explained')} |" for suite, name in failed]
        lines += ["", DELETED_TWICE.rstrip("\n"), ""]
    return "\n".join(lines)


def _row(label: str, ours: Outcome, motos: Outcome) -> str:
    return f"| {label} | {ours.passed} of {ours.ran} | {motos.passed} of {motos.ran} | {ours.skipped} |"
