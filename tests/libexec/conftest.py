"""What the tests of the programs beside a service's unit share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libexec.helper_host import HelperHost
from tests.libexec.model_server import ModelServer, serving


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving(ModelServer()) as made:
        yield made


@pytest.fixture
def host(tmp_path: Path, server: ModelServer) -> HelperHost:
    return HelperHost(tmp_path, server)
