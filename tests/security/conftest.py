"""What the matrices are tested with."""

import pytest

from security import simulator


@pytest.fixture(scope="session")
def simulated():
    """Skips where Node or the simulator is not installed: they are prerequisites of `make security` alone."""
    try:
        simulator.simulate({}, [])
    except simulator.SimulatorMissing as missing:
        pytest.skip(str(missing))
