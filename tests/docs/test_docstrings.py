"""The examples in docstrings: they run, what they print is what they say, and every public name has one."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import hf_layertracer


FENCE = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def documented() -> Iterator[tuple[str, str]]:
    """Every class, method and function of the package by its full name, with its docstring."""
    for found in pkgutil.walk_packages(hf_layertracer.__path__, "hf_layertracer."):
        if found.name.endswith("__main__"):
            continue
        for name, thing in vars(importlib.import_module(found.name)).items():
            if getattr(thing, "__module__", None) == found.name:
                yield from _with_members(f"{found.name}.{name}", thing)


def _with_members(name: str, thing: Any) -> Iterator[tuple[str, str]]:
    if inspect.isclass(thing) or inspect.isfunction(thing):
        yield name, thing.__doc__ or ""
    if inspect.isclass(thing):
        for inner, member in vars(thing).items():
            function = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else None
            if inspect.isfunction(function) or isinstance(member, classmethod | staticmethod):
                yield f"{name}.{inner}", getattr(member, "__doc__", None) or ""


EXAMPLES = [
    pytest.param(textwrap.dedent(code), id=name.removeprefix("hf_layertracer."))
    for name, docstring in documented()
    for _, code in FENCE.findall(docstring)
]
# What the tests of these rooms run at length, with donors, corpora and processes. Of their examples, only the
# imports run here.
AT_LENGTH = ("data_selection.", "hybrid.", "trials.run.", "trials.halving.")


@pytest.mark.parametrize("code", [code for code in EXAMPLES if ">>>" in code.values[0]])
def test_an_example_prints_what_it_says(code: str):
    example = doctest.DocTestParser().get_doctest(code, {}, "example", None, 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not said, "".join(said)


@pytest.mark.usefixtures("my_report")
@pytest.mark.parametrize("code", [code for code in EXAMPLES if ">>>" not in code.values[0]])
def test_an_example_runs(code: str, at_hand: dict[str, Any], request: pytest.FixtureRequest):
    tree, name = ast.parse(code), request.node.callspec.id
    if "list_reports(" in code:
        hf_layertracer.push_report(hf_layertracer.LayerTracerReport.load("my-report"), "alice/model")
    if name.startswith(AT_LENGTH):
        tree.body = [line for line in tree.body if isinstance(line, ast.Import | ast.ImportFrom)]
        assert tree.body, "an example begins with its imports"
    exec(compile(tree, name, "exec"), at_hand)


@pytest.mark.parametrize("name", hf_layertracer.__all__)
def test_every_public_name_has_an_example(name: str):
    assert "```python" in getattr(hf_layertracer, name).__doc__
