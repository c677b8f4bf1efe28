# The image of a SuperNode, or of a SuperLink; the part "The image" of README.md tells how to build it.
#
#   docker build -t REGISTRY/flower-hpc:0.1.0 .                          # without torch
#   docker build -t REGISTRY/flower-hpc:0.1.0-cpu --build-arg TORCH=cpu .
#   docker build -t REGISTRY/flower-hpc:0.1.0-cu126 --build-arg TORCH=cu126 .

ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG UV=0.13.9
ARG TORCH=none
ARG TORCH_INDEX=
ARG EXTRAS=kubernetes
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/flower-hpc
RUN python3 -m pip install --no-cache-dir --target /opt/uv "uv==${UV}" \
    && /opt/uv/bin/uv venv --python "$(command -v python3)" "${VIRTUAL_ENV}"

# torch before all else: it is the largest layer and changes least. CUDA's libraries come with its wheels
RUN if [ "${TORCH}" != none ]; then \
      if [ -n "${TORCH_INDEX}" ]; then set -- --index-url "${TORCH_INDEX}"; else set -- --torch-backend "${TORCH}"; fi; \
      /opt/uv/bin/uv pip install torch torchvision "$@"; \
    fi

# what the package needs, as long as that stays the same, comes from the layer cache
WORKDIR /src
COPY pyproject.toml ./
RUN IFS=,; for extra in ${EXTRAS}; do set -- "$@" --extra "${extra}"; done; \
    /opt/uv/bin/uv pip install --requirements pyproject.toml "$@"

COPY README.md LICENSE ./
COPY flower_hpc ./flower_hpc
RUN /opt/uv/bin/uv pip install --no-deps .

FROM ${BASE}
ARG VERSION=0.1.0
ARG TORCH=none
LABEL org.opencontainers.image.title="flower-hpc" \
      org.opencontainers.image.description="Flower's SuperNode and SuperLink with flower-hpc" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      flower-hpc.torch="${TORCH}"
# a name for the number, since some libraries ask who they are
RUN echo "flower:x:1000:1000:flower:/var/lib/flower-hpc:/usr/sbin/nologin" >> /etc/passwd \
    && echo "flower:x:1000:" >> /etc/group \
    && mkdir -p /var/lib/flower-hpc /etc/flower-hpc \
    && chown 1000:1000 /var/lib/flower-hpc
COPY --from=build /opt/flower-hpc /opt/flower-hpc
# the root file system may be read-only: what is written goes to HOME and /tmp.
# no NVIDIA_VISIBLE_DEVICES: a pod that asked for no GPU must see none
ENV PATH=/opt/flower-hpc/bin:$PATH \
    HOME=/var/lib/flower-hpc \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    FLWR_TELEMETRY_ENABLED=0
USER 1000:1000
WORKDIR /var/lib/flower-hpc
HEALTHCHECK NONE
CMD ["flower-hpc", "--help"]
