# The image of a site: it checks plans, contributes, and answers over Flower.
#
#     docker build -f deploy/site.Dockerfile -t collabdm-site .
#     docker run --rm --network none -v /data/north:/data:ro -v collabdm-private:/private \
#         -v "$PWD":/round collabdm-site contribute plan.json --data /data --site north -o north.safetensors
#
# /private keeps the secret of the site, its keys and its ledger: never remove that volume. The folder
# of the round has to be writable for the user 1000, or for the one of `--user`.
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
    && install -d -o collabdm -g collabdm /round /private

ENV FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 MPLCONFIGDIR=/tmp
ENV COLLABDM_SITE_FOLDER=/private
VOLUME /private
USER collabdm
WORKDIR /round
ENTRYPOINT ["collabdm"]
CMD ["check", "--help"]
