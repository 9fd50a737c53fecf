"""Where a task goes that says so itself: what a path may be, and what becomes of it below a handler's URL."""

import pytest
from msgspec import UNSET

from app.domain.errors import Refusal
from app.domain.payloads import content_type_problem
from app.domain.targets import TaskTarget, address_of, path_problem


@pytest.mark.parametrize(
    ("url", "path", "address"),
    [
        ("http://a", "/x", "http://a/x"),
        ("http://a/", "x", "http://a/x"),
        ("http://a/v1", "/x/y", "http://a/v1/x/y"),
        ("http://a/v1/", "/x", "http://a/v1/x"),
        ("http://a/v1", "/", "http://a/v1/"),
        ("http://a/v1", "?page=2", "http://a/v1?page=2"),
        ("http://a/v1?key=k", "/x", "http://a/v1/x?key=k"),
        ("http://a/v1?key=k", "/x?page=2&next=%2Fhome", "http://a/v1/x?key=k&page=2&next=%2Fhome"),
        ("http://a", "@b/x", "http://a/@b/x"),
        ("http://a", ".b/x", "http://a/.b/x"),
        ("http://a", "/:80/x", "http://a/:80/x"),
        ("http://a/v1", "/a..b/100%25", "http://a/v1/a..b/100%25"),
    ],
)
def test_a_path_is_appended_to_the_handlers_url(url: str, path: str, address: str) -> None:
    assert path_problem(path) is None
    assert address_of(TaskTarget(path=path), url, "path", "") == address
    assert address_of(TaskTarget(path=path), url, "any", "") == address


@pytest.mark.parametrize(
    "path",
    [
        *("..", "../x", "/a/..", "/a/../b", "/%2e%2e/b", "/.%2E/b", "/..;a=1/b", "/a/%2e%2e;x"),
        *("//b/x", "http://b/x", "HTTPS:b", "javascript:x"),
        *("/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%252fb", "/%252e%252e/b"),
        *("/a\nb", "/a\x00b", "/a b", "/\x7f", "/a%00b", "/a%0d%0ab", "/\u00e9", "/a#b", "/a%2", "/a%zz", "/?a=%"),
    ],
)
def test_a_path_that_a_server_might_read_as_a_way_out_is_refused(path: str) -> None:
    assert path_problem(path)


def test_a_handler_allows_what_it_says_and_no_more() -> None:
    path, url, method = TaskTarget(path="/x"), TaskTarget(url="http://b/"), TaskTarget(method="GET")

    def refused(target: TaskTarget, allowed: str) -> str | None:
        try:
            address_of(target, "http://a/v1", allowed, "/target")  # type: ignore[arg-type]
        except Refusal as refusal:
            return refusal.errors[0].pointer
        return None

    assert [refused(target, "own") for target in (path, url, method)] == ["/target"] * 3
    assert [refused(target, "path") for target in (path, url, method)] == [None, "/target/url", None]
    assert [refused(target, "any") for target in (path, url, method)] == [None] * 3
    assert address_of(method, "http://a/v1?k=1", "path", "") == "http://a/v1?k=1"
    assert refused(TaskTarget(path="/" + "x" * 2047), "path") == "/target/path"
    assert path.url is UNSET


@pytest.mark.parametrize(
    ("text", "binary", "json"),
    [
        ("application/json", True, True),
        ("Application/JSON; charset=utf-8", True, True),
        ("application/cloudevents+json", True, True),
        ("image/png", True, False),
        ('multipart/form-data; boundary="a b"', True, False),
        ("json", False, False),
        ("a/b\r\nhost: c", False, False),
        ("a/b; c", False, False),
        ("a/b," * 100, False, False),
        ("application/json, text/html", False, False),
        ("", False, False),
    ],
)
def test_a_content_type_is_a_media_type_and_that_of_json_is_json(text: str, binary: bool, json: bool) -> None:
    assert (content_type_problem(text, binary=True) is None) == binary
    assert (content_type_problem(text, binary=False) is None) == json
