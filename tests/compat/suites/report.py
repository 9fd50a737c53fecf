"""What the suites say of the SQS wire, as a page."""

from tests.compat.suites.running import KOMBU, MOTO, ROOT, Outcome

PAGE = ROOT / "docs" / "reference" / "sqs-suites.md"
REGIONS = "Queues of an account are the same in every region; the test expects each region to have its own."
GROUPS = "Sluice gives out one message of a group at a time; the test receives two of one group in one answer, as SQS allows."
TWICE = (
    "The test deletes a message twice and expects 404, which GoAws answers. AWS answers 200, and so do moto, whose own tests "
    "check that, and Sluice."
)
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
        lines.append("")
    return "\n".join(lines)


def _row(label: str, ours: Outcome, motos: Outcome) -> str:
    return f"| {label} | {ours.passed} of {ours.ran} | {motos.passed} of {motos.ran} | {ours.skipped} |"
