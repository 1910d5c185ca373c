"""What all tests share: a fresh place for compiled kernels, fixed seeds, the folder of real data."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _kernel_cache() -> str:
    """A folder for compiled kernels that belongs to these sources alone.

    numba notices an edit of a kernel's own file only, so every state of the sources has a folder of its own.
    """
    digest = hashlib.sha256(f"{Path.home()} {ROOT}".encode())
    for source in sorted((ROOT / "kernels").rglob("*.py")):
        digest.update(source.read_bytes())
    return str(Path(tempfile.gettempdir()) / f"stdeconv_fast_kernels_{digest.hexdigest()[:16]}")


# numba reads it once, at its import. Whoever sets NUMBA_CACHE_DIR keeps their own folder.
if "numba" not in sys.modules:
    os.environ.setdefault("NUMBA_CACHE_DIR", _kernel_cache())

from hypothesis import settings  # noqa: E402

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's name and on nothing else."""
    import numpy as np

    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets, named by the environment variable STDECONV_DATA."""
    name = os.environ.get("STDECONV_DATA")
    if not name:
        pytest.skip("needs real data: set STDECONV_DATA to the folder that holds the data sets")
    folder = Path(name)
    if not folder.is_dir():
        pytest.fail(f"STDECONV_DATA must name a folder; got {name!r}")
    return folder.resolve()


def pytest_collection_modifyitems(config, items):
    """The whole matrix of compilations runs only where -m names it; GPU tests skip where there is no GPU."""
    if "nvrtc_all" not in (config.option.markexpr or ""):
        out = [item for item in items if item.get_closest_marker("nvrtc_all")]
        if out:
            config.hook.pytest_deselected(items=out)
            items[:] = [item for item in items if item not in set(out)]
    if any(item.get_closest_marker("gpu") for item in items):
        from stdeconv_fast.backend import find_card
        from stdeconv_fast.errors import DeviceError

        try:
            find_card()
        except DeviceError as error:
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason=str(error)))
