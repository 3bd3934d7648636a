# ReasonLoop in a container; docs/install.md has more.
#
#     docker build -t reasonloop .                              # torch's CPU build
#     docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" reasonloop run quickstart
#
#     docker build -t reasonloop-cuda --build-arg TORCH_INDEX= .     # for NVIDIA GPUs: torch from the public index, with CUDA
#     docker run --rm --gpus all -v "$PWD:/work" --user "$(id -u):$(id -g)" reasonloop-cuda run quickstart
#
# Tried with podman and runc on a base made of Debian 12 and its Python 3.11, since the base image below could not be
# fetched where it was written. The CUDA variant was neither built nor run.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim
# the compiler makes our CPU kernels at first use, for the processor that it then is
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
# gguf reads GGUF files; others are in pyproject.toml
ARG EXTRAS=gguf
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir "$(echo /wheel/*.whl)[$EXTRAS]"
# whoever runs it may write the cache (kernels, converted models): -v reasonloop-cache:/cache keeps it
RUN useradd --create-home reasonloop && install --directory --mode 1777 /cache && install --directory --owner reasonloop /work
# USER: torch asks for a name, which a bare `--user 1234` has not
ENV XDG_CACHE_HOME=/cache USER=reasonloop PYTHONUNBUFFERED=1
USER reasonloop
WORKDIR /work
ENTRYPOINT ["reasonloop"]
CMD ["--help"]
