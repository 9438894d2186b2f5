# A tag is moved to other images; a digest is one image for good. CONTRIBUTING.md says how to give one here.
ARG PYTHON_IMAGE=python:3.11-slim

# The wheel and everything it needs go into a venv here; nothing of what builds them goes further.
# All that comes from outside has the hash of requirements/*.txt.
FROM ${PYTHON_IMAGE} AS builder
WORKDIR /src
COPY requirements ./requirements
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt \
 && python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements/hub.txt
COPY pyproject.toml LICENSE ./
COPY hub ./hub
RUN /build/bin/pip wheel --no-cache-dir --no-index --no-build-isolation --no-deps --wheel-dir /wheels . \
 && /venv/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
 && /venv/bin/pip check \
 && /venv/bin/pip uninstall --yes pip setuptools

# The demo without a hub of its own: `docker compose up`.
FROM builder AS demo
COPY clients ./clients
COPY demo ./demo
RUN python -m pip --python /venv/bin/python install --no-cache-dir --require-hashes --requirement requirements/demo.txt \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin demo
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8081 8082 8083 8084 8085 8086 8087
ENTRYPOINT ["/venv/bin/python", "-m", "demo", "--host", "0.0.0.0", "--no-hub"]

FROM ${PYTHON_IMAGE} AS hub
# A fixed number, so that a volume's owner can be set from outside.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hub \
 && install --directory --owner hub --group hub --mode 0700 /data
COPY --from=builder /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FHIRCAST_HOST=0.0.0.0 \
    FHIRCAST_PORT=8080 \
    FHIRCAST_STORE=sqlite:////data/fhircast-hub.db
USER 10001:10001
VOLUME /data
EXPOSE 8080
# http.client, for it knows nothing of HTTP_PROXY.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", "\
import http.client, os, sys; \
hub = http.client.HTTPConnection('127.0.0.1', int(os.environ['FHIRCAST_PORT']), timeout=2); \
hub.request('GET', '/health/live'); \
sys.exit(hub.getresponse().status != 200)"]
ENTRYPOINT ["fhircast-hub", "serve"]
