"""Whether metrics are pushed, and to where: OpenTelemetry's own environment variables say it, as they do for traces."""

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from app.telemetry.metrics import Metrics


class Push(Protocol):
    async def aclose(self) -> None:
        """Send what is left; waits a few seconds at most."""


def metrics_endpoint(environ: Mapping[str, str]) -> str | None:
    """Return the OTLP endpoint for metrics; None if none is configured."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_METRICS_EXPORTER") == "none":
        return None
    own = environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return own or (base.rstrip("/") + "/v1/metrics" if base else None)


def build_push(environ: Mapping[str, str], metrics: Metrics, *, version: str, replica: str) -> Push | None:
    """Start to push these metrics, if that is configured."""
    endpoint = metrics_endpoint(environ)
    if endpoint is None:
        return None
    # Imported on demand, as for traces: most installations never use it.
    otlp = import_module("app.telemetry.otlp_metrics")
    interval = otlp.interval_seconds(environ)
    return cast(Push, otlp.OtlpPush(metrics, endpoint, interval, version=version, replica=replica))
