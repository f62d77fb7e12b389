"""Fixtures: seeds, and one line that says which backend runs."""

import keras
import pytest


def pytest_report_header():
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()
