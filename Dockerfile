# Tapetum for CPUs, run by user 1000, without rights. Images come in and runs go out by volumes (make runs/ first):
#   docker run --rm -v "$PWD/photos:/data:ro" -v "$PWD/runs:/runs" tapetum fit --images /data --output /runs/first
FROM python:3.11-slim

# Builds for CPUs, from PyTorch's own index: without CUDA, the image is several GB smaller.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir '.[timm,plots]' && tapetum doctor --install

RUN useradd --create-home --uid 1000 tapetum && mkdir /data /runs && chown tapetum /runs
USER tapetum
ENV TAPETUM_CACHE=/runs/.cache
VOLUME ["/data", "/runs"]
WORKDIR /runs
ENTRYPOINT ["tapetum"]
CMD ["--help"]
