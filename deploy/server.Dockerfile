# The image of the server: it makes plans, distils contributions, and asks the sites over Flower.
#
#     docker build -f deploy/server.Dockerfile -t collabdm-server .
#     docker run --rm --network none -v "$PWD":/round collabdm-server distill plan.json \
#         north.safetensors south.safetensors -o set.safetensors
#     docker run --rm -p 8000:8000 -v /srv/round:/round --entrypoint flower-superlink collabdm-server \
#         --ssl-ca-certfile ca.crt --ssl-certfile server.crt --ssl-keyfile server.key \
#         --enable-supernode-auth --host 0.0.0.0 --port 8000
#
# The folder of the round has to be writable for the user 1000, or for the one of `--user`.
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY experiments experiments
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY --from=wheel /wheels /wheels
# the CPU build of PyTorch first, so that nothing else brings the larger one for GPUs
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.11,<2.14" \
    && pip install --no-cache-dir "$(echo /wheels/*.whl)[flower]" \
    && useradd --uid 1000 --create-home collabdm \
    && install -d -o collabdm -g collabdm /round

ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 MPLCONFIGDIR=/tmp
EXPOSE 8000
USER collabdm
WORKDIR /round
ENTRYPOINT ["collabdm"]
CMD ["distill", "--help"]
