"""The version of this release, as the package's metadata have it."""

from importlib.metadata import version

VERSION = version("sluice")
