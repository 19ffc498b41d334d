# Postroom in a container: the hash-locked requirements, the service, its starter templates, and nothing else.
# docs/container.md tells how it is run. No frontend is named, so that any builder of Dockerfiles can read this file.

# Both stages need the same Python at the same path. Give it by digest for builds that must be repeatable.
ARG PYTHON_IMAGE=python:3.13-slim

# --- build: makes /opt/postroom, with tools that stay here ------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/run.txt requirements/otel.txt requirements/
# `--only-binary` proves that no compiler is needed: every locked package has a wheel for this platform. The environment has no pip
# of its own; the one beside it installs into it.
RUN python3 -m venv /opt/tools \
 && python3 -m venv --without-pip /opt/postroom \
 && /opt/tools/bin/python -m pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && /opt/tools/bin/python -m pip --python /opt/postroom/bin/python install \
      --require-hashes --only-binary :all: -r requirements/run.txt
# What not everybody needs, by the names of files in requirements/: `--build-arg EXTRAS=otel` for traces.
ARG EXTRAS=
RUN for extra in ${EXTRAS}; do \
      /opt/tools/bin/python -m pip --python /opt/postroom/bin/python install \
        --require-hashes --only-binary :all: -r "requirements/${extra}.txt" || exit 1; \
    done
COPY LICENSE README.md pyproject.toml ./
COPY service service
COPY templates templates
RUN /opt/tools/bin/python -m hatchling build -t wheel -d /build/dist \
 && /opt/tools/bin/python -m pip --python /opt/postroom/bin/python install --no-deps --no-index /build/dist/*.whl \
 && mkdir -p /build/home/var

# --- the image: no RUN, so that building it for another platform runs nothing of that platform in this stage ----------
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="postroom" \
      org.opencontainers.image.description="Transactional email over your own provider relays" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/postroom /opt/postroom
# The working directory belongs to the service, for its store in var/; all else it can read and not change.
COPY --from=build --chown=10001:10001 /build/home /srv/postroom

# Bytecode was written by pip above; a read-only root could not take it. Loopback, the default of POSTROOM_HOST, ends at
# the container's edge.
ENV PATH=/opt/postroom/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    POSTROOM_HOST=0.0.0.0

# The default store is var/postroom.db below the working directory. There is no VOLUME on purpose: it would put what a 202
# promised into a nameless volume that goes with the container. Mount var/, or name a PostgreSQL.
WORKDIR /srv/postroom
EXPOSE 8000
# By number: Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001

# Alive, not ready: an orchestrator that replaces unhealthy containers must not do so because the database is away. A start waits for
# its database for two minutes, and for another process that migrates for one; it is healthy at the first answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=200s --retries=6 CMD ["python3", "-I", "-S", "-c", "\
import http.client, os, sys; \
connection = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('POSTROOM_PORT') or 8000), timeout=4); \
connection.request('GET', '/healthz'); \
sys.exit(connection.getresponse().status != 200)"]

# Exec form: the service is process 1 and gets SIGTERM itself. It waits for whatever process it starts, so it needs no init
# above it.
ENTRYPOINT ["postroom"]
CMD ["serve"]
