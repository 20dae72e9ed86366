from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer import HybridRecipe, LayerTracerError


FULL = {
    "base": "org/a",
    "layers": [{"from": "org/a", "layer_range": [0, 2]}, {"from": "org/b@v1", "layer_range": [2, 4]}],
    "mixers": [{"layers": [1, 3], "kind": "mamba2", "init": "fresh"}],
    "embeddings": "org/b",
    "norm": "org/b",
    "head": "org/a",
    "tokenizer": "org/a",
    "dtype": "float32",
    "seed": 3,
}


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_says_all_that_a_recipe_can_say(tmp_path, suffix):
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(json.dumps(FULL) if suffix == "json" else yaml.safe_dump(FULL))
    recipe = HybridRecipe.from_file(path)
    assert recipe.to_dict() == FULL
    assert recipe.layers[1].donor == "org/b@v1"
    assert recipe.layers[1].layer_range == (2, 4)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b/c"]), st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=5)
)
def test_what_is_written_is_read_back(ranges):
    layers = [{"from": donor, "layer_range": [start, start + count]} for donor, start, count in ranges]
    recipe = HybridRecipe.from_dict({"base": "a", "layers": layers})
    assert HybridRecipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layerz": []}, "layerz: unknown key"),
        ({"base": None}, "base: input should be a valid string"),
        ({"layers": []}, "layers: tuple should have at least 1 item"),
        ({"layers": [{"from": "x", "layer_range": [3, 3]}]}, r"layers\[0\].layer_range: \[3, 3\] holds no layer"),
        ({"layers": [{"from": "x", "layer_range": [4, 2]}]}, r"layers\[0\].layer_range: \[4, 2\] holds no layer"),
        (
            {"layers": [{"from": "x", "layer_range": [-1, 2]}]},
            r"layers\[0\].layer_range\[0\]: .*greater than or equal",
        ),
        ({"layers": [{"from": "x", "layer_range": [1]}]}, r"layers\[0\].layer_range\[1\]: field required"),
        ({"layers": [{"layer_range": [1, 2]}]}, r"layers\[0\].from: field required"),
        ({"layers": [{"from": "x", "layer_range": [1, 2], "scale": 2}]}, r"layers\[0\].scale: unknown key"),
        ({"mixers": [{"layers": [1], "kind": "rwkv"}]}, r"mixers\[0\].kind: .*'mamba2' or 'gated_deltanet'"),
        ({"mixers": [{"layers": [1], "kind": "mamba2", "init": "no"}]}, r"mixers\[0\].init: .*'from_attention'"),
        ({"mixers": [{"layers": [1, 1], "kind": "mamba2"}]}, r"mixers\[0\] names layer 1 a second time"),
        (
            {"mixers": [{"layers": [1], "kind": "mamba2"}, {"layers": [0, 1], "kind": "mamba2"}]},
            r"mixers\[1\] names layer 1 a second time",
        ),
        ({"dtype": "int8"}, "dtype: input should be 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_a_mistake_is_named_with_its_place(change, message):
    with pytest.raises(LayerTracerError, match=message) as caught:
        HybridRecipe.from_dict({"base": "org/a", **change}, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(LayerTracerError, match=r"dtype: .*; seeds: unknown key"):
        HybridRecipe.from_dict({"base": "org/a", "dtype": "x", "seeds": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [("base: [", "no valid YAML"), ("- base", "a recipe is a mapping"), ("", "a recipe is a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(LayerTracerError, match=message):
        HybridRecipe.from_file(tmp_path / "r.yaml")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(LayerTracerError, match="Could not read"):
        HybridRecipe.from_file(tmp_path / "none.yaml")


MERGEKIT = """
slices:
  - sources:
      - model: org/a
        layer_range: [0, 16]
  - sources:
      - model: {model: {path: org/b, revision: v2}}
        layer_range: [8, 24]
merge_method: passthrough
dtype: bfloat16
"""


def test_a_passthrough_file_of_mergekit_is_read_as_mergekit_means_it(tmp_path):
    (tmp_path / "m.yml").write_text(MERGEKIT)
    recipe = HybridRecipe.from_file(tmp_path / "m.yml")
    assert [(source.donor, source.layer_range) for source in recipe.layers] == [
        ("org/a", (0, 16)),
        ("org/b@v2", (8, 24)),
    ]
    assert (recipe.base, recipe.embeddings, recipe.norm, recipe.head) == ("org/a", "org/a", "org/b@v2", "org/b@v2")
    assert recipe.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_method": "slerp"}, "'slerp' mixes weights"),
        ({"parameters": {"t": 1}}, "parameters: unknown key"),
        ({"slices": []}, "slices: a list of slices"),
        ({"slices": [{"sources": []}]}, r"slices\[0\]: a slice has exactly one source"),
        ({"slices": [{"sources": [{"model": "a"}]}]}, r"slices\[0\].sources\[0\]: `layer_range:` is missing"),
        ({"slices": [{"sources": [{"layer_range": [0, 1]}]}]}, "`model:` is missing"),
        ({"slices": [{"sources": [{"model": "a+lora", "layer_range": [0, 1]}]}]}, "no model without adapters"),
        (
            {"slices": [{"sources": [{"model": "a", "layer_range": [0, 1], "parameters": {"scale": 0}}]}]},
            r"sources\[0\].parameters: unknown key; layers are taken as they are",
        ),
        ({"tokenizer_source": "union"}, "a union of vocabularies is not built"),
    ],
)
def test_what_mergekit_can_and_we_do_not_is_refused(change, message):
    content = {"merge_method": "passthrough", "slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]}
    with pytest.raises(LayerTracerError, match=message):
        HybridRecipe.from_dict({**content, **change})
