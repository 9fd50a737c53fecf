"""Errors as SQS answers them: AWS JSON 1.0 in the body, and the code of the query protocol in a header.

SDKs read the type from the body, and show people the code from `x-amzn-query-error`, which older programs compare. Kinds, codes and
statuses are those of the SQS API reference; tests compare the kinds with botocore's service model.
"""

from typing import NamedTuple

from app.compat.signatures import NotSigned
from app.domain.errors import Refusal

_SQS = "com.amazonaws.sqs#"
_COMMON = "com.amazon.coral.service#"
_SIMPLE = "AWS.SimpleQueueService."


class Kind(NamedTuple):
    """How one error looks on the wire."""

    type: str
    """The `__type` of the body."""
    code: str
    """The code that the query protocol has for it."""
    status: int = 400


def _modeled(code: str = "", status: int = 400) -> tuple[str, str, int]:
    return _SQS, code, status


def _common(type_name: str, status: int = 400) -> tuple[str, str, int]:
    return _COMMON + type_name, "", status


_GIVEN: dict[str, tuple[str, str, int]] = {
    # of the service model, by its names of errors
    "BatchEntryIdsNotDistinct": _modeled(_SIMPLE),
    "BatchRequestTooLong": _modeled(_SIMPLE),
    "EmptyBatchRequest": _modeled(_SIMPLE),
    "InvalidAddress": _modeled(),
    "InvalidAttributeName": _modeled(),
    "InvalidAttributeValue": _modeled(),
    "InvalidBatchEntryId": _modeled(_SIMPLE),
    "InvalidIdFormat": _modeled(),
    "InvalidMessageContents": _modeled(),
    "InvalidSecurity": _modeled(status=403),
    "KmsAccessDenied": _modeled("KMS.AccessDeniedException"),
    "KmsDisabled": _modeled("KMS.DisabledException"),
    "KmsInvalidKeyUsage": _modeled("KMS.InvalidKeyUsageException"),
    "KmsInvalidState": _modeled("KMS.InvalidStateException"),
    "KmsNotFound": _modeled("KMS.NotFoundException"),
    "KmsOptInRequired": _modeled("KMS.OptInRequired"),
    "KmsThrottled": _modeled("KMS.ThrottlingException"),
    "MessageNotInflight": _modeled(_SIMPLE),
    "OverLimit": _modeled(status=403),
    "PurgeQueueInProgress": _modeled(_SIMPLE),
    "QueueDeletedRecently": _modeled(_SIMPLE),
    "QueueDoesNotExist": _modeled(_SIMPLE + "NonExistentQueue"),
    "QueueNameExists": _modeled("QueueAlreadyExists"),
    "ReceiptHandleIsInvalid": _modeled(),
    # 429 instead of 400, because SDKs of every age retry it
    "RequestThrottled": _modeled(status=429),
    "ResourceNotFoundException": _modeled(),
    "TooManyEntriesInBatchRequest": _modeled(_SIMPLE),
    "UnsupportedOperation": _modeled(_SIMPLE),
    # common to all services of AWS, by their codes in the query protocol
    "AccessDenied": _common("AccessDeniedException", 403),
    "IncompleteSignature": _common("IncompleteSignatureException"),
    "InternalError": _common("InternalFailure", 500),
    "InvalidAction": _common("UnknownOperationException"),
    "InvalidClientTokenId": _common("UnrecognizedClientException", 403),
    "InvalidParameterValue": _common("InvalidParameterValueException"),
    "MalformedInput": _common("SerializationException"),
    "MissingAuthenticationToken": _common("MissingAuthenticationTokenException", 403),
    "MissingParameter": _common("MissingRequiredParameterException"),
    "RequestEntityTooLarge": _common("RequestEntityTooLargeException", 413),
    "ServiceUnavailable": _common("ServiceUnavailableException", 503),
    "SignatureDoesNotMatch": _common("InvalidSignatureException", 403),
}


def _kind(name: str, where: str, code: str, status: int) -> Kind:
    return Kind(where + name if where == _SQS else where, code + name if code == _SIMPLE else code or name, status)


KINDS = {name: _kind(name, *given) for name, given in _GIVEN.items()}


class SqsError(Exception):
    """Raised for a request that is answered with an error of SQS; also the reason of a failed entry of a batch."""

    def __init__(self, code: str, message: str) -> None:
        if code not in KINDS:
            raise ValueError(f"unknown SQS error {code!r}")
        super().__init__(f"{code}: {message}")
        self.code = code
        """A key of KINDS."""
        self.message = message

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]

    @property
    def sender_fault(self) -> bool:
        """Whether the request is to blame, and not the service."""
        return self.kind.status < 500 and self.code != "RequestThrottled"


def queue_does_not_exist() -> SqsError:
    return SqsError("QueueDoesNotExist", "The specified queue does not exist.")


_OF_REFUSALS = {
    "unauthenticated": "InvalidClientTokenId",
    "forbidden": "AccessDenied",
    "host_refused": "AccessDenied",
    "queue_not_found": "QueueDoesNotExist",
    "queue_is_push": "UnsupportedOperation",
    "queue_in_use": "UnsupportedOperation",
    "lease_lost": "ReceiptHandleIsInvalid",
    "task_cancelled": "ReceiptHandleIsInvalid",
    "queue_full": "RequestThrottled",
    "key_full": "RequestThrottled",
    "rate_limited": "RequestThrottled",
    "too_large": "RequestEntityTooLarge",
    "encryption_unavailable": "KmsDisabled",
    "malformed": "MalformedInput",
    "unavailable": "ServiceUnavailable",
    "internal": "InternalError",
}
"""By code; any other refusal is about a value."""


def error_of(error: SqsError | NotSigned | Refusal) -> SqsError:
    """Return the error of SQS that is closest to what a request was refused with."""
    if isinstance(error, SqsError):
        return error
    if isinstance(error, NotSigned):
        return SqsError(error.code, error.message)
    if error.code == "queue_not_found":
        return queue_does_not_exist()
    return SqsError(_OF_REFUSALS.get(error.code, "InvalidParameterValue"), error.detail)


def refusal_of(error: SqsError | Refusal) -> Refusal:
    """Return a refusal as the audit records it. The verb may have recorded the one that an error was raised from."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error.__cause__, Refusal):
        return error.__cause__
    return Refusal("queue_not_found" if error.code == "QueueDoesNotExist" else "invalid", error.message)
