"""What holds for every test. Fixtures live beside the tests that use them."""

import pytest

from tests import allowed_skips


def pytest_configure(config: pytest.Config) -> None:
    allowed_skips.pytest_configure(config)
