from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForCausalLM

from hf_layertracer import DiagnosisConfig, HybridRecipe, LayerTracerError, build_hybrid, diagnose, push_hybrid
from hf_layertracer.hybrid.provenance import HybridRecord


@pytest.fixture
def built(donors, recipe, tmp_path):
    """`built({"a": "mit", "b": None})`: a hybrid of two donors, whose cards name these licences."""

    def make(licenses: dict[str, str | None]) -> Path:
        for donor in donors:
            if license := licenses.get(Path(donor).name):
                (Path(donor) / "README.md").write_text(f"---\nlicense: {license}\n---\n# Mine\n")
        a, b = donors
        mixers = [{"layers": [1], "kind": "mamba2"}]
        reason = "Because <b>it</b> | does."
        build_hybrid(recipe(base=a, layers=[(a, 0, 2), (b, 2, 4)], mixers=mixers, reason=reason), tmp_path / "h")
        return tmp_path / "h"

    return make


def test_a_hybrid_is_pushed_with_all_that_is_known_of_it_in_one_commit(hub, built, tmp_path):
    folder = built({"a": "mit", "b": "mit"})
    commit = push_hybrid(folder, "alice/hybrid", private=True)
    repo = hub.repo("alice/hybrid")
    assert [made.oid for made in repo.commits()] == [commit.oid]
    assert repo.private
    assert set(repo.files) >= {
        "README.md",
        "config.json",
        "tokenizer.json",
        "layertracer_hybrid.json",
        "layertracer_hybrid.yaml",
        "layertracer_hybrid.png",
        "model.safetensors.index.json",
    }
    card = ModelCard.load("alice/hybrid")
    assert (card.data.license, card.data.base_model) == ("mit", None)
    assert {"layertracer", "merge", "hybrid"} <= set(card.data.tags)
    assert "| 2-3 | b | 2-3 | full\\_attention | - |" in card.text
    assert "mamba2, from\\_attention" in card.text
    assert "Because \\<b\\>it\\</b\\> \\| does." in card.text
    assert "new and untrained" in card.text
    assert type(AutoModelForCausalLM.from_pretrained("alice/hybrid")).__name__ == "GraniteMoeHybridForCausalLM"
    # No path of this machine is published.
    published = [
        HfApi().hf_hub_download("alice/hybrid", name) for name in repo.files if not name.endswith("safetensors")
    ]
    for file in published:
        assert str(tmp_path).encode() not in Path(file).read_bytes(), file
    recipe = yaml.safe_load(Path(HfApi().hf_hub_download("alice/hybrid", "layertracer_hybrid.yaml")).read_text())
    assert HybridRecipe.from_dict(recipe).layers[1].donor == "b"
    assert (
        HybridRecord.load(HfApi().hf_hub_download("alice/hybrid", "layertracer_hybrid.json")).layers[1].mixer
        == "mamba2"
    )


def test_the_same_push_again_changes_nothing(hub, built):
    folder = built({})
    first = push_hybrid(folder, "alice/hybrid")
    files = dict(hub.repo("alice/hybrid").files)
    assert push_hybrid(folder, "alice/hybrid").oid in {first.oid, hub.repo("alice/hybrid").head.oid}
    assert dict(hub.repo("alice/hybrid").files) == files


def test_its_own_report_goes_along(hub, built, token_probes):
    folder = built({})
    model = AutoModelForCausalLM.from_pretrained(folder)
    diagnose(model, token_probes, config=DiagnosisConfig(repeats=2)).save(folder)
    push_hybrid(folder, "alice/hybrid")
    card = ModelCard.load("alice/hybrid").text
    assert "## LayerTracer report" in card
    assert "## Where each layer comes from" in card
    assert "layertracer_report.json" in hub.repo("alice/hybrid").files


@pytest.mark.parametrize(
    ("licenses", "expected", "warning"),
    [
        ({"a": "mit", "b": "mit"}, "mit", None),
        ({"a": "mit", "b": "apache-2.0"}, None, "different licences"),
        ({"a": "mit"}, None, "No licence is named by b"),
    ],
)
def test_licences_of_all_donors_are_listed_and_a_conflict_is_pointed_out(hub, built, licenses, expected, warning):
    push_hybrid(built(licenses), "alice/hybrid")
    card = ModelCard.load("alice/hybrid")
    assert card.data.license == expected
    assert (warning in card.text) if warning else ("**" not in card.text)


def test_donors_on_the_hub_are_named_as_base_models(hub, donors, recipe, tmp_path):
    for name, donor in zip("ab", donors, strict=True):
        HfApi().create_repo(f"lab/{name}")
        HfApi().upload_folder(repo_id=f"lab/{name}", folder_path=donor)
    record = build_hybrid(recipe(base="lab/a", layers=[("lab/a", 0, 2), ("lab/b", 2, 4)]), tmp_path / "h")
    push_hybrid(tmp_path / "h", "alice/hybrid")
    card = ModelCard.load("alice/hybrid")
    assert card.data.base_model == ["lab/a", "lab/b"]
    assert card.data.base_model_relation == "merge"
    assert f"lab/b@{record.layers[3].revision[:12]}" in card.text


def test_a_folder_without_a_hybrid_is_refused(hub, donors):
    with pytest.raises(LayerTracerError, match="holds no hybrid"):
        push_hybrid(donors[0], "alice/hybrid")
    assert not HfApi().repo_exists("alice/hybrid")


def test_a_record_of_a_newer_version_is_refused(built):
    file = built({}) / "layertracer_hybrid.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"schema_version": 9}))
    with pytest.raises(LayerTracerError, match="schema version 9"):
        HybridRecord.load(file.parent)
    file.write_text("[]")
    with pytest.raises(LayerTracerError, match="is not valid"):
        HybridRecord.load(file)
