import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.webhook.urls import UrlError, check_url

pytestmark = pytest.mark.ci


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "authority"),
    [
        ("http://Example.COM", "example.com", 80, "/", "example.com"),
        ("HTTPS://example.com.:8443/a?b=c%20d", "example.com", 8443, "/a?b=c%20d", "example.com:8443"),
        ("https://example.com:443?x", "example.com", 443, "/?x", "example.com"),
        ("http://example.com:443/", "example.com", 443, "/", "example.com:443"),
        ("http://my_service:8000/", "my_service", 8000, "/", "my_service:8000"),
        ("http://[2001:DB8::1]/", "2001:db8::1", 80, "/", "[2001:db8::1]"),
        ("http://[::ffff:10.0.0.1]:81/", "::ffff:a00:1", 81, "/", "[::ffff:a00:1]:81"),
        ("http://bücher.example/ü", "xn--bcher-kva.example", 80, "/%C3%BC", "xn--bcher-kva.example"),
        ("http://example.com//a/../b", "example.com", 80, "//a/../b", "example.com"),
    ],
)
def test_a_url_is_read_into_what_is_connected_to(url: str, host: str, port: int, target: str, authority: str) -> None:
    parsed = check_url(url)
    assert (parsed.host, parsed.port, parsed.target, parsed.authority) == (host, port, target, authority)


@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0x0.0x0.0x1",
        "017700000001",
        "0177.0.0.1",
        "0177.0x0.0.1",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.0.0.1",
    ],
)
def test_every_old_spelling_of_an_address_is_that_address(spelling: str) -> None:
    parsed = check_url(f"http://{spelling}/")
    assert (parsed.host, str(parsed.address)) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com",
        "javascript:alert(1)",
        "http:/example.com",
        "http:example.com",
        "http://",
        "http:///path",
        "http://?x",
        "http://:80/",
        "http://user@example.com/",
        "http://user:pw@example.com/",
        "http://example.com@169.254.169.254/",
        "http://example.com:80@127.0.0.1/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:123456/",
        "http://example.com:/",
        "http://example.com:+80/",
        "http://example.com: 80/",
        "http://example.com:8_0/",
        "http://example.com:８０/",
        "http://example.com:80:90/",
        "http://example.com/#fragment",
        "http://example.com#@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http:\\\\example.com",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/a\r\nx: y",
        "http://example.com/\t",
        "http://example.com/\x00",
        "http://example.com/\x7f",
        "http://example.com/\x85",
        "http://example.com/\ud800",
        " http://example.com/",
        "http://example.com/\n",
        "http://example..com/",
        "http://.example.com/",
        "http://example.com../",
        "http://-example.com/",
        "http://%31%32%37.0.0.1/",
        "http://exam%70le.com/",
        "http://" + "a" * 64 + ".com/",
        "http://" + "a." * 127 + "com/",
        "http://[::1/",
        "http://::1/",
        "http://[::1]x/",
        "http://[::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[127.0.0.1]/",
        "http://[v1.x]/",
        "http://[]/",
        "http://256.0.0.1/",
        "http://1.2.3.4.5/",
        "http://1.2.3.256/",
        "http://4294967296/",
        "http://08.1.1.1/",
        "http://1_0.0.0.1/",
        "http://0x7g.0.0.1/",
        "http://example.1/",
        "http://example.com/" + "a" * 2048,
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(UrlError):
        check_url(url)


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: "http://" + text))
def test_any_text_is_either_read_or_refused_and_breaks_no_request_line(text: str) -> None:
    try:
        parsed = check_url(text)
    except UrlError:
        return
    for part in (parsed.host, parsed.target, parsed.authority):
        assert part.isascii()
        assert not any(char <= " " or char == "\x7f" for char in part)
    assert parsed.target.startswith("/")
    assert 1 <= parsed.port <= 65535
