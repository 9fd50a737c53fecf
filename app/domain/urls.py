"""URLs that are called: what is checked before they are saved, whatever they lead to."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

MAX_URL = 2048
_URL_TEXT = re.compile(r"[\x21-\x7e]+")


def url_problem(url: str) -> str | None:
    """Return what is wrong with an http or https URL; None if nothing is."""
    problem = text_problem_of_url(url) or scheme_problem(url, ("http", "https"))
    if problem is not None:
        return problem
    if "@" in urlsplit(url).netloc:
        return "must not contain a user name or password; put an authorization header in headers instead"
    return "must not contain a fragment" if "#" in url else None


def text_problem_of_url(url: str) -> str | None:
    """Return why a text is no URL; None if it may be one."""
    if len(url) > MAX_URL:
        return f"is longer than {MAX_URL} characters"
    if _URL_TEXT.fullmatch(url) is None or "\\" in url:
        return "must be printable ASCII without spaces or backslashes; percent-encode everything else"
    return None


def scheme_problem(url: str, schemes: Collection[str]) -> str | None:
    """Return why a text is no URL of these schemes with a valid host and port; None if it is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in schemes:
        return "must begin with " + " or ".join(f"{scheme}://" for scheme in schemes)
    return "has no valid host" if not parts.hostname or port == 0 else None
