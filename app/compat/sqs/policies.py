"""AddPermission and RemovePermission: statements in a queue's policy, which is kept and shown but not enforced."""

import json
from collections.abc import Sequence
from typing import Any, Final

from app.compat.sqs.attributes import MAX_POLICY, decoded
from app.compat.sqs.errors import SqsError

MAX_ACTIONS: Final = 7
ALLOWED: Final = frozenset(
    {
        "*",
        "ChangeMessageVisibility",
        "DeleteMessage",
        "GetQueueAttributes",
        "GetQueueUrl",
        "ListDeadLetterSourceQueues",
        "PurgeQueue",
        "ReceiveMessage",
        "SendMessage",
    }
)


def _invalid(value: str, parameter: str, why: str) -> SqsError:
    return SqsError("InvalidParameterValue", f"Value {value[:200]} for parameter {parameter} is invalid. Reason: {why}")


def check_permission(label: str, accounts: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises SqsError: MissingParameter, InvalidParameterValue, OverLimit."""
    if not allowed:
        raise SqsError("MissingParameter", "The request must contain the parameter Actions.")
    if not (1 <= len(label) <= 80 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()):
        raise _invalid(label, "Label", "Must be 1 to 80 of A-Z a-z 0-9 _ -.")
    if not accounts or not all(account.isascii() and account.isdigit() and len(account) == 12 for account in accounts):
        raise _invalid(f"[{', '.join(accounts)}]", "PrincipalId", "Unable to verify.")
    if len(allowed) > MAX_ACTIONS:
        raise SqsError("OverLimit", f"{len(allowed)} Actions were found, maximum allowed is {MAX_ACTIONS}.")
    for action in allowed:
        if action not in ALLOWED:
            raise _invalid(f"SQS:{action}", "ActionName", "Only the queue owner is allowed to invoke this action.")


def with_permission(policy: str | None, arn: str, label: str, accounts: Sequence[str], allowed: Sequence[str]) -> str:
    """Return the policy with one more statement. Raises SqsError: InvalidParameterValue, OverLimit."""
    document = _document(policy, arn)
    if any(_sid(statement) == label for statement in document["Statement"]):
        raise _invalid(label, "Label", "Already exists.")
    principals = [f"arn:aws:iam::{account}:root" for account in accounts]
    actions = [f"SQS:{action}" for action in allowed]
    document["Statement"].append(
        {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": principals[0] if len(principals) == 1 else principals},
            "Action": actions[0] if len(actions) == 1 else actions,
            "Resource": arn,
        }
    )
    changed = json.dumps(document)
    if len(changed) > MAX_POLICY:
        raise SqsError("OverLimit", f"The policy of the queue would be longer than {MAX_POLICY} characters.")
    return changed


def without_permission(policy: str | None, arn: str, label: str) -> str | None:
    """Return the policy without a statement; None if none is left. Raises SqsError (InvalidParameterValue)."""
    document = _document(policy, arn)
    left = [statement for statement in document["Statement"] if _sid(statement) != label]
    if len(left) == len(document["Statement"]):
        raise _invalid(label, "Label", "can't find label on existing policy.")
    return json.dumps(document | {"Statement": left}) if left else None


def _document(policy: str | None, arn: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Version": "2012-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []}
    found |= {} if policy is None else decoded(policy)
    if not isinstance(found["Statement"], list):
        found["Statement"] = [found["Statement"]]  # a policy may have a single one
    return found


def _sid(statement: Any) -> Any:
    return statement.get("Sid") if isinstance(statement, dict) else None
