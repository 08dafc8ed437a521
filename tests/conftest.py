"""Small real files on disk, made once; and the real data, where it lies beside the project."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from helpers.command import Shell, call
from helpers.fields import write_table_of_fields
from helpers.predictors import predictor
from hypothesis import settings

from mitolume.models.bundle import save_bundle

gc.disable()  # while the tests are imported, which takes a third longer with it
settings.register_profile("mitolume", deadline=None)  # how busy a machine is proves nothing
settings.load_profile("mitolume")

DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Look for garbage among what the tests make, not among what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real images, or skip."""
    if not DATA.is_dir():
        pytest.skip(f"the real images are not at {DATA}")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def _two_cores() -> None:
    """Use two cores: by threads, or by two test processes with one thread each."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model at 0.1 µm, see `predictor`; tests leave it as it is."""
    made = predictor()
    folder = tmp_path_factory.mktemp("bundle") / "model"
    save_bundle(folder, made.network.state_dict(), made.card)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write fields of all roles, see `write_table_of_fields`."""
    return write_table_of_fields(tmp_path)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Shell:
    """Call the command line as a person would, see `Shell`."""

    def run(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        found = call(monkeypatch, *arguments)
        printed = capsys.readouterr()
        assert found == code, printed.err
        return printed.out + printed.err

    return run
