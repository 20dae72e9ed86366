"""A report without a model behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import made_reports

from hf_layertracer.records import LayerPlan
from hf_layertracer.report import LayerTracerReport


@pytest.fixture(scope="session")
def make_report() -> Callable[..., LayerTracerReport]:
    """`make_report(num_layers=6, probes=4, **changes)`: `lens__valid=False` changes `lens.valid`."""
    return made_reports.make_report


@pytest.fixture(scope="session")
def make_plan_for() -> Callable[..., LayerPlan]:
    """`make_plan_for(num_layers, **changes)`: a plan that freezes the deep half."""
    return made_reports.make_plan


@pytest.fixture(scope="session")
def make_later() -> Callable[..., dict]:
    """`make_later(num_layers, probes=4, **changes)`: a diagnosis after step 100, as JSON."""
    return made_reports.make_later
