"""The function's memory over thousands of invocations, as it runs on Lambda."""

import pytest

from bench import lambda_function


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    first, last = lambda_function.resident_mib(tmp_path, 1000, 4000)
    assert last < first + 1.5  # MiB; keeping one picture of a hundred would be 1.6
