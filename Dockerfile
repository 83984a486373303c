# The server's image: what `lathe serve` needs and nothing that trains. A model repository is mounted on /models.
FROM python:3.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY lathe lathe
COPY server server
COPY compression compression
COPY loadtest loadtest
# Such as [s3,signing]: repositories in object stores, signed variants.
ARG EXTRAS=
# The environment has no pip of its own. Wheels only: nothing is compiled, so the slim image needs no compiler.
RUN python -m pip wheel --no-deps --wheel-dir /build/wheels . \
    && python -m venv --without-pip /opt/lathe \
    && python -m pip --python /opt/lathe install --only-binary=:all: -c constraints.txt \
       "$(ls /build/wheels/*.whl)${EXTRAS}"

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="lathe" \
      org.opencontainers.image.description="Real-time vision inference over gRPC on compressed ONNX models" \
      org.opencontainers.image.licenses="Apache-2.0"
# A name for the uid, because some libraries ask for it. SetRoute writes into the repository, so it is the user's own.
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --shell /usr/sbin/nologin lathe \
    && install --directory --owner=lathe --group=lathe /models
COPY --from=build /opt/lathe /opt/lathe
ENV PATH=/opt/lathe/bin:$PATH LATHE_CACHE=/tmp/lathe
# By number: Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001
WORKDIR /models
VOLUME /models
# 8500 gRPC, 8501 /metrics and health. Control, 8502, stays on the container's own loopback:
# `docker exec NAME lathe ctl ...` reaches it.
EXPOSE 8500 8501
# Frames in hand get 10 s (--drain-seconds) after this signal, which is all that `docker stop` waits: give it 15.
STOPSIGNAL SIGTERM
# No proxy of the environment may answer in the server's place. Follows --http if you move it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8501/readyz', timeout=2)"]
ENTRYPOINT ["lathe", "serve"]
CMD ["/models", "--grpc", "0.0.0.0:8500", "--http", "0.0.0.0:8501", "--control", "127.0.0.1:8502"]
