# Two images from one file: `serving` (no learning framework in it) and `training` (train, export, import features).
#   docker build --target serving -t rankd:serving .
#   docker build --target training -t rankd:training .

FROM python:3.11-slim AS wheel
WORKDIR /src
RUN python3 -m venv /opt/build
COPY pyproject.toml README.md LICENSE ./
COPY rankd rankd
COPY contract contract
COPY training training
COPY export export
COPY service service
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# Dependencies are installed with empty packages in place of ours: the layer survives every change of our code.
FROM python:3.11-slim AS skeleton
WORKDIR /src
RUN python3 -m venv /opt/rankd
COPY pyproject.toml README.md LICENSE ./
RUN for package in rankd contract/rankd_contract training/rankd_training export/rankd_export service/rankd_service; \
    do mkdir -p "$package" && touch "$package/__init__.py"; done

FROM skeleton AS serving-environment
COPY constraints/service.txt constraints/service.txt
RUN /opt/rankd/bin/pip install --no-cache-dir -c constraints/service.txt '.[service]'
COPY --from=wheel /dist /dist
RUN /opt/rankd/bin/pip install --no-cache-dir --no-deps --force-reinstall /dist/*.whl

FROM python:3.11-slim AS serving
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin rankd \
    && install -d -o 10001 -g 10001 /models
COPY --from=serving-environment /opt/rankd /opt/rankd
ENV PATH=/opt/rankd/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
EXPOSE 8080
# Alive, not ready: a service that waits for its first bundle must not be restarted for it.
HEALTHCHECK --interval=5s --timeout=2s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/livez', timeout=1.5)"]
ENTRYPOINT ["rankd"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080", "--repository", "/models"]

FROM skeleton AS training-environment
COPY constraints/all.txt constraints/all.txt
# torch alone and first: an open range could pull a newest build with gigabytes of CUDA packages.
RUN /opt/rankd/bin/pip install --no-cache-dir -c constraints/all.txt 'torch>=2.11,<2.14' \
    && /opt/rankd/bin/pip install --no-cache-dir -c constraints/all.txt '.[training,export,features]'
COPY --from=wheel /dist /dist
RUN /opt/rankd/bin/pip install --no-cache-dir --no-deps --force-reinstall /dist/*.whl

FROM python:3.11-slim AS training
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /work --shell /usr/sbin/nologin rankd \
    && install -d -o 10001 -g 10001 /models /work
COPY --from=training-environment /opt/rankd /opt/rankd
ENV PATH=/opt/rankd/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["rankd"]
CMD ["--help"]

# What a build with no --target makes.
FROM serving
