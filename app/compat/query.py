"""The query protocol of AWS: `Action=…` as a form, answered in XML.

Of it, only `GetCallerIdentity` of STS is served, with which tools check their credentials. SQS itself is served as JSON; a client
that is too old to speak it is told so in a form that it can read.
"""

from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from app.domain.callers import Caller

MEDIA_TYPE = b"text/xml"
FORM = b"application/x-www-form-urlencoded"
MAX_BODY_BYTES = 65_536
MAX_FIELDS = 100
_SQS_NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"
_STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
TOO_OLD = "This endpoint serves SQS as AWS JSON 1.0, not by the query protocol: use an AWS SDK or CLI from November 2023 or later."


def action_in(form: bytes) -> str | None:
    """Return the action of a form; None if there is none."""
    try:
        fields = parse_qsl(form.decode("latin-1"), max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    return dict(fields).get("Action")


def caller_identity(caller: Caller, account: str, request_id: str) -> bytes:
    """Return the answer to GetCallerIdentity: the tenant as an account, and its key as a user."""
    user = caller.key_id or "anonymous"
    return _document(
        "GetCallerIdentityResponse",
        _STS_NAMESPACE,
        f"<GetCallerIdentityResult><Arn>{escape(f'arn:aws:iam::{account}:user/{user}')}</Arn><UserId>{escape(user)}</UserId>"
        f"<Account>{account}</Account></GetCallerIdentityResult>"
        f"<ResponseMetadata><RequestId>{escape(request_id)}</RequestId></ResponseMetadata>",
    )


def error_document(code: str, message: str, status: int, request_id: str) -> bytes:
    blame = "Sender" if status < 500 else "Receiver"
    return _document(
        "ErrorResponse",
        _SQS_NAMESPACE,
        f"<Error><Type>{blame}</Type><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        f"<RequestId>{escape(request_id)}</RequestId>",
    )


def _document(root: str, namespace: str, content: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{namespace}">{content}</{root}>\n'.encode()
