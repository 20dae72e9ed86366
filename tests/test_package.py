"""What `import hf_layertracer` costs and offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hf_layertracer


def test_importing_the_package_imports_no_heavy_library():
    # In its own process: this one has imported everything already.
    heavy = ("torch", "transformers", "datasets", "matplotlib", "gradio", "pydantic")
    code = f"import sys, hf_layertracer; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_diagnosing_does_not_import_matplotlib_or_datasets():
    code = (
        "import sys; from hf_layertracer import diagnose, make_plan, LayerTracerReport;"
        "print([name for name in ('datasets', 'matplotlib', 'gradio') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("name", hf_layertracer.__all__)
def test_every_public_name_exists_and_has_a_docstring(name: str):
    assert getattr(hf_layertracer, name).__doc__
    assert name in dir(hf_layertracer)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hf_layertracer.nonsense
