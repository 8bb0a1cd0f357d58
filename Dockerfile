# Scans on a CPU: docker run --rm -v IMAGES:/data:ro -v OUT:/out safevlm scan /data --out /out/scan
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY safevlm safevlm
COPY training training
COPY checkpoints checkpoints
RUN pip install --no-cache-dir '.[scan,report]' && rm -rf /src/*
RUN useradd --create-home scanner && mkdir /out && chown scanner /out
USER scanner
WORKDIR /home/scanner
ENV HF_HUB_OFFLINE=1
ENTRYPOINT ["safevlm"]
CMD ["--help"]
