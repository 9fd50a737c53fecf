"""Where the documentation of this release is, which the API serves as it stands and the pages show."""

from pathlib import Path

_APP = Path(__file__).parents[1]
_BUNDLED = _APP / "api/documentation"
"""In the wheel. In a checkout, the documentation is beside app/."""
FOLDER = _BUNDLED if _BUNDLED.is_dir() else _APP.parent / "docs"
