from __future__ import annotations

from matplotlib.colors import to_hex

from hf_layertracer.hybrid.picture import draw_stack, picture
from hf_layertracer.hybrid.provenance import HybridRecord


def made(depth: int) -> HybridRecord:
    layers = [
        {
            "donor": "org/$a$" if i < depth // 2 else "org/b",
            "sha256": "0",
            "layer": i,
            "donor_layer": i + 3,
            "kind": "full_attention",
            "mixer": "mamba2" if i == 1 else None,
            "init": "fresh" if i == 1 else None,
            "verified": "yes",
        }
        for i in range(depth)
    ]
    return HybridRecord(architecture="X", base="org/a", dtype="float32", recipe={}, layers=layers, tokenizer="org/a")


def test_colours_say_the_donor_and_hatching_a_new_mixer():
    axes = draw_stack(made(6)).axes[0]
    colours = [to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, True, False, False, False, False]
    assert [text.get_text() for text in axes.texts] == ["3", "4", "5", "6", "7", "8"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["org/$a$", "org/b", "new mixer: mamba2"]


def test_one_layer_and_many_layers_are_drawn():
    for depth in (1, 200):
        assert picture(made(depth)).startswith(b"\x89PNG")
