"""Fixtures of a core without an engine or an edge."""

from tests.cores import caller, core, start_core

__all__ = ["caller", "core", "start_core"]
