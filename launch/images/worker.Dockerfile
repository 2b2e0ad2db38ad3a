# What runs networks on a cluster: a machine of Dataflow, a sidecar of a Flink TaskManager.
# docker build -f launch/images/worker.Dockerfile -t IMAGE .
#
# The versions are those of requirements.lock (tests/launch/test_images.py compares them). The
# machine brings NVIDIA's driver, which must know this CUDA: 580 or later for CUDA 13. torch's own
# wheels bring the rest of CUDA, so the smallest base is enough.
ARG CUDA_VERSION=13.2.2
ARG PYTHON_VERSION=3.12
ARG BEAM_VERSION=2.77.0

FROM apache/beam_python${PYTHON_VERSION}_sdk:${BEAM_VERSION} AS beam

FROM nvidia/cuda:${CUDA_VERSION}-base-ubuntu24.04
ARG PYTHON_VERSION
# Ubuntu keeps only the newest patch of a package, so a pinned one cannot be had a month later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
       ca-certificates "python${PYTHON_VERSION}" "python${PYTHON_VERSION}-venv" \
    && rm -rf /var/lib/apt/lists/* \
    && "python${PYTHON_VERSION}" -m venv /opt/adalabel

# Beam would start its worker in an empty environment of its own, without what is installed here.
ENV PATH=/opt/adalabel/bin:$PATH \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1

# First what adalabel needs, in the locked versions and without the tools of its tests: a layer that
# no change of adalabel's own code makes again.
WORKDIR /opt/adalabel/source
COPY requirements.lock setup.py pyproject.toml LICENSE ./
RUN pip install --no-cache-dir --constraint requirements.lock ".[dataflow]"
COPY policy policy
COPY transforms transforms
COPY pipelines pipelines
COPY launch launch
RUN pip install --no-cache-dir --no-deps --no-build-isolation --force-reinstall . \
    && python -c "import pipelines.classify, pipelines.extract, launch.cli"

COPY --from=beam /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]
