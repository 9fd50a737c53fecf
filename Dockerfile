# One image for every role; the command selects the role: `sluice up`, `sluice up --role engine`, `sluice migrate`, …
# The build stage has the tools. The image has only what runs: a virtual environment without pip.

FROM python:3.11-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /srv/sluice
COPY requirements/ requirements/
# Behind a proxy that inspects TLS: docker build --secret id=ca,src=/path/to/ca.pem
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi \
    && python -m venv /tools \
    && /tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/uv.txt \
    && /tools/bin/uv pip sync --python /tools/bin/python --require-hashes requirements/dev.txt requirements/uv.txt \
    && python -m venv --without-pip /opt/sluice \
    && /tools/bin/uv pip sync --python /opt/sluice/bin/python --require-hashes requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY alembic/ alembic/
COPY app/ app/
COPY docs/ docs/
COPY sdk/python/ sdk/python/
# The service and its client. The first wheel includes the migrations. hatchling is one of the tools, so building downloads nothing.
RUN /tools/bin/python -m hatchling build -t wheel -d /tmp/wheel \
    && cd sdk/python && /tools/bin/python -m hatchling build -t wheel -d /tmp/wheel \
    && /tools/bin/uv pip install --python /opt/sluice/bin/python --no-deps /tmp/wheel/*.whl

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/sluice --shell /usr/sbin/nologin sluice
COPY --from=build /opt/sluice /opt/sluice
ENV PATH=/opt/sluice/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SLUICE_HOST=0.0.0.0 \
    SLUICE_PORT=8080 \
    SLUICE_DATA_DIR=/var/lib/sluice/data
USER 10001
WORKDIR /var/lib/sluice
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"SLUICE_PORT\"]}/health/ready', timeout=2)"]
ENTRYPOINT ["sluice"]
CMD ["up"]
