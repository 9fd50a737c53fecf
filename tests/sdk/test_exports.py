"""What `sluice_client` exports: every name is there, and none costs before it is used."""

import ast
import subprocess
import sys

import pytest

import sluice_client
from tests.sluices import ROOT

SOURCE = ROOT / "sdk" / "python" / "sluice_client" / "__init__.py"


def test_each_name_is_exported_for_programs_and_for_type_checkers() -> None:
    typed = {
        name.name
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sluice_client.")
        for name in node.names
    }
    rooms = [name for names in sluice_client.ROOMS.values() for name in names]
    assert set(sluice_client.__all__) == typed == set(rooms) and len(rooms) == len(typed)
    assert all(getattr(sluice_client, name) is not None for name in sluice_client.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(sluice_client, "nonsense")  # noqa: B009


@pytest.mark.ci
def test_an_import_loads_no_http_library() -> None:
    code = "import sluice_client, sys; print('httpx2' in sys.modules, len(dir(sluice_client)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", str(len(sluice_client.__all__))]
