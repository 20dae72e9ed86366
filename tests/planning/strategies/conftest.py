"""Models that are only counted."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def meta(llama):
    """Models are only counted here, so weights are not needed; one of each depth is enough."""
    made = {}

    def of(num_layers: int, tied: bool = False):
        key = (num_layers, tied)
        if key not in made:
            made[key] = llama(num_layers, tied, device="meta")
        return made[key]

    return of
