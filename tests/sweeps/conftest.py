import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for sweep_helpers

from sweep_helpers import Lab


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path / "runs")
