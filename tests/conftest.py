"""Fixtures: seeds, and one line that says which backend runs."""

import gc

import keras
import pytest


def pytest_report_header():
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


def pytest_sessionstart():
    # `clear_session` collects garbage after each test. What the backend imported is
    # none, and to look through it takes longer than most tests.
    keras.utils.set_random_seed(0)
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()
    gc.freeze()
