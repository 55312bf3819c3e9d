"""The recorded job of these tests, run once."""

import pytest

from tests.mesos_checklist.recorded import Recording, record


@pytest.fixture(scope="package")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One eventful job on a real cluster (recorded.py)."""
    return record(tmp_path_factory.mktemp("recorded"))
