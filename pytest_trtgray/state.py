"""Where a run of pytest keeps its settings and session. Standard library and pytest only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_trtgray.settings import Settings

if TYPE_CHECKING:
    from pytest_trtgray.session import TrtSession

settings_key = pytest.StashKey[Settings]()
session_key = pytest.StashKey["TrtSession"]()


def trt_session(config: pytest.Config) -> TrtSession:
    """The session of this run of pytest, made when first needed."""
    if session_key not in config.stash:
        from pytest_trtgray.session import TrtSession

        config.stash[session_key] = TrtSession(config, config.stash[settings_key])
    return config.stash[session_key]
