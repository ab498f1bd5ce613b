from __future__ import annotations

import pytest

from tests.scripted import CountingPolicy, ScriptedEnv


@pytest.fixture
def scripted_env() -> type[ScriptedEnv]:
    return ScriptedEnv


@pytest.fixture
def policy() -> CountingPolicy:
    return CountingPolicy()
