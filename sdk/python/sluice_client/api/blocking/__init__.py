"""The blocking form of `api/`, generated from it by `make openapi`."""
