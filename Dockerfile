# syntax=docker/dockerfile:1
#
# docker build -t duting . && docker run -p 8420:8420 -v duting:/data duting
#
# The speech model is fetched into the volume at the first start. Without a network, put its folder there
# beforehand: docker run -v duting:/data -v /media/base:/model:ro duting models fetch base --from /model

# ── the dashboard ──────────────────────────────────────────────────────────────────────────────────
FROM node:22-bookworm-slim AS dashboard
WORKDIR /src/dashboard/web
COPY dashboard/web/package.json dashboard/web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY dashboard/web ./
RUN npm run build

# ── the environment: locked dependencies, then our own wheel ───────────────────────────────────────
FROM python:3.12-slim-bookworm AS environment
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/duting
COPY requirements.lock requirements-dev.lock /src/
RUN /opt/duting/bin/python -m pip install --no-deps --require-hashes -r /src/requirements.lock
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY streams streams
COPY detectors detectors
COPY dashboard/*.py dashboard/
COPY --from=dashboard /src/dashboard/static dashboard/static
# The build backend at its locked version, too.
RUN /opt/duting/bin/python -m pip wheel --no-deps --build-constraint requirements-dev.lock --wheel-dir /wheels . \
    && /opt/duting/bin/python -m pip install --no-deps --no-index /wheels/*.whl

# ── what runs ──────────────────────────────────────────────────────────────────────────────────────
FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="Duting 督听" \
      org.opencontainers.image.description="Live supervision of a bank's calls" \
      org.opencontainers.image.licenses="Apache-2.0"
# Each folder may become a volume of its own: a new volume takes the owner of what it covers.
RUN groupadd --gid 10001 duting \
    && useradd --uid 10001 --gid duting --home-dir /data --no-create-home --shell /usr/sbin/nologin duting \
    && install -d -o duting -g duting -m 0700 /data /data/models /data/var
COPY --from=environment /opt/duting /opt/duting
ENV PATH=/opt/duting/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DUTING_HOST=0.0.0.0 \
    DUTING_PORT=8420 \
    DUTING_DATA_DIR=/data/var \
    DUTING_MODELS_DIR=/data/models
WORKDIR /data
VOLUME /data
USER 10001:10001
# duting serve; duting worker: health and metrics.
EXPOSE 8420 8421
# The first start fetches the model: give it the time.
HEALTHCHECK --interval=15s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['DUTING_PORT'] + '/healthz', timeout=4)"]
# Ends running calls and closes their recordings before it stops.
STOPSIGNAL SIGTERM
ENTRYPOINT ["duting"]
CMD ["serve"]
