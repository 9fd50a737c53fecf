"""The blocking form of what waits for the service, generated."""
