"""Writes what the Python client has from `openapi/openapi.json`: types, operations, and all of its blocking form."""
