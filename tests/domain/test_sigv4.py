"""Signature Version 4, by the vectors of AWS's test suite."""

from datetime import UTC, datetime

import pytest

from app.domain.sigv4 import parse_authorization, sign

NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VECTORS = [
    ("GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("POST", "/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "GET",
        "/?Param2=value2&Param1=value1",
        {},
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "GET",
        "/",
        {"My-Header1": " value1", "My-Header2": ' "a   b   c"'},
        b"",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    ("POST", "/", FORM, b"Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ("GET", "/./", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("GET", "/example/..", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("GET", "//", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
]


@pytest.mark.parametrize(("method", "target", "headers", "body", "signature"), VECTORS)
def test_a_signature_is_that_of_the_vector(
    method: str, target: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    signed = sign(
        method,
        f"https://example.amazonaws.com{target}",
        headers,
        body,
        access_key_id="AKIDEXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session_token=None,
        region="us-east-1",
        service="service",
        now=NOW,
    )
    read = parse_authorization(signed["authorization"])
    assert read.signature == signature
    assert (read.access_key_id, read.scope) == ("AKIDEXAMPLE", "20150830/us-east-1/service/aws4_request")
    assert read.signed_headers == tuple(sorted(["host", "x-amz-date", *(name.lower() for name in headers)]))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer slk_x",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256 Credential=a/b/c/aws4_request, SignedHeaders=host, Signature=x",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws5_request, SignedHeaders=host, Signature=x",
        "AWS4-HMAC-SHA256 Credential=//c/d/aws4_request, SignedHeaders=host, Signature=x",
    ],
)
def test_a_header_that_is_no_signature_is_refused_with_a_reason(header: str) -> None:
    with pytest.raises(ValueError, match=r"must be|lacks"):
        parse_authorization(header)
