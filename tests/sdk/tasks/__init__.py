"""Tasks of the Python client: their types, payloads and calls."""
