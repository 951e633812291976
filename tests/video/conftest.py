"""What the tests of reading videos share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the reader warns of, whoever has set up the library's logging."""
    logger = logging.getLogger("fila_video")
    root = logging.getLogger("transformers")
    propagating, root.propagate = root.propagate, True
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING)
    yield caplog
    logger.removeHandler(caplog.handler)
    root.propagate = propagating
