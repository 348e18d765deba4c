"""Where a run of pytest keeps its settings and session.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_trtgray.session import TrtSession
    from pytest_trtgray.settings import Settings

settings_key = pytest.StashKey["Settings"]()
session_key = pytest.StashKey["TrtSession"]()


def settings_of(config: pytest.Config) -> Settings:
    """The settings of this run of pytest, read when first needed.

    Raises:
        pytest.UsageError: an option or ini value does not make sense.
    """
    if settings_key not in config.stash:
        from pytest_trtgray.errors import TrtGrayError
        from pytest_trtgray.settings import read_settings

        try:
            config.stash[settings_key] = read_settings(config)
        except TrtGrayError as error:
            raise pytest.UsageError(error.message) from None
    return config.stash[settings_key]


def trt_session(config: pytest.Config) -> TrtSession:
    """The session of this run of pytest, made when first needed."""
    if session_key not in config.stash:
        from pytest_trtgray.session import TrtSession

        config.stash[session_key] = TrtSession(config, settings_of(config))
    return config.stash[session_key]
