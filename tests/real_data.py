"""Where real data lie, for the tests that need them: ADALABEL_DATA, or beside the checkout."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("ADALABEL_DATA", "../shared/data")).absolute()
PHOTOS = DATA / "photos"
NETWORKS = DATA / "networks"
HOSTILE = DATA / "hostile"


def needs(what: str, folder: Path) -> pytest.MarkDecorator:
    """Skip tests with a reason where a folder of DATA is absent."""
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no {what} in ADALABEL_DATA ({folder})")
