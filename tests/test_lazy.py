"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hf_layertracer import planning
from hf_layertracer.lazy import lazy_names


def test_a_name_is_that_of_its_module():
    find = lazy_names("hf_layertracer.planning", {"plan": ["make_plan"]})
    assert find("make_plan") is planning.plan.make_plan


def test_a_name_that_is_not_listed_is_an_attribute_error():
    find = lazy_names("hf_layertracer.planning", {"plan": ["make_plan"]})
    with pytest.raises(AttributeError, match=r"module 'hf_layertracer.planning' has no attribute '_outside'"):
        find("_outside")


@pytest.mark.parametrize("name", planning.__all__)
def test_every_name_of_planning_is_there(name):
    assert getattr(planning, name) is not None


def test_the_settings_of_a_run_do_not_wait_for_torch():
    code = (
        "import sys; from hf_layertracer import LayerTracerConfig; LayerTracerConfig(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
