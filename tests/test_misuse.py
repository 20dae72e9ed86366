"""Something else where a model, a plan, a report or a recipe belongs: one line that says what belongs there."""

from __future__ import annotations

import pytest

from hf_layertracer import (
    HybridRecipe,
    LayerTracerCallback,
    LayerTracerError,
    LayerTracerReport,
    Probe,
    apply_plan,
    diagnose,
    make_plan,
)


MISUSES = {
    "a model's name for a model": (lambda model: diagnose("gpt2", [Probe((1, 2), 3)]), "A model was expected"),
    "nothing for a model": (lambda model: apply_plan(None, make_plan(model)), "A model was expected"),
    "a path for a report": (lambda model: make_plan("my-report"), "takes a report or a model, not str"),
    "a path for a plan": (lambda model: apply_plan(model, "plan.json"), "takes a plan, as make_plan makes it"),
    "nothing for a report": (lambda model: LayerTracerReport.load(None), "from a file, folder or repository"),
    "a number for settings": (lambda model: LayerTracerCallback(3), "a config or a dictionary, not int"),
    "a number for a trainer": (lambda model: LayerTracerCallback().attach(3), "attach takes a trainer, not int"),
    "a number for a recipe": (lambda model: HybridRecipe.of(3), "a recipe is a mapping"),
    "a number for probes": (lambda model: diagnose(model, 5), "probes, rows or a file of them, not int"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_what_belongs_there_is_said_in_one_line(tiny_llama, misuse):
    call, said = MISUSES[misuse]
    with pytest.raises(LayerTracerError, match=said) as error:
        call(tiny_llama())
    assert "\n" not in str(error.value)


def test_a_recipe_may_come_as_what_its_file_holds(tmp_path):
    (tmp_path / "recipe.yaml").write_text("base: org/model\n")
    recipe = HybridRecipe.of({"base": "org/model"})
    assert HybridRecipe.of(recipe) is recipe
    assert HybridRecipe.of(tmp_path / "recipe.yaml") == recipe
