# KEEP on the CPU.
#   docker build -t keep .
#   docker run --rm -v "$PWD:/data" --user "$(id -u)" keep keep-restore old.mp4 -o new.mp4 --aligned
FROM python:3.12.11-slim-bookworm AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12.11-slim-bookworm
ARG TORCH=2.15.0
ARG TORCHVISION=0.29.2
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch==$TORCH" "torchvision==$TORCHVISION"
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-cache-dir /dist/*.whl
RUN useradd --create-home --uid 10001 keep
# --user may name a user without an entry in /etc/passwd: a home to write to, and a name for the caches of torch
ENV HOME=/tmp USER=keep
USER 10001
WORKDIR /data
ENTRYPOINT ["/usr/bin/env"]
CMD ["keep-restore", "--help"]
