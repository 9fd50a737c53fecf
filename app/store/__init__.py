"""What is written: the only room that speaks SQL."""

from pathlib import Path

FUNCTIONS = Path(__file__).parent / "sql" / "functions"
"""The SQL functions, one a file, frozen once released; migrations install them."""
