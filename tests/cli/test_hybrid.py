from __future__ import annotations


def test_a_hybrid_is_built_and_shown(run, monkeypatch, make_model, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    make_model("Llama").save_pretrained(tmp_path / "a")
    (tmp_path / "r.yaml").write_text(
        f"base: {tmp_path / 'a'}\nlayers:\n- {{from: {tmp_path / 'a'}, layer_range: [1, 3]}}\n"
    )
    code, out, err = run("hybrid", "build", tmp_path / "r.yaml", "--out", tmp_path / "h")
    assert (code, err) == (0, "")
    assert f"Hybrid: {tmp_path / 'h'}" in out
    code, shown, _ = run("hybrid", "show", tmp_path / "h")
    assert code == 0
    for word in ("LlamaForCausalLM", "0-1", "1-2", "bit-equal"):
        assert word in shown


def test_what_is_wrong_is_one_line_or_a_table(run, make_model, tmp_path):
    make_model("Llama").save_pretrained(tmp_path / "a")
    make_model("Llama", hidden_size=16).save_pretrained(tmp_path / "b")
    (tmp_path / "r.yaml").write_text("base: ./none\nlayerz: 1\n")
    code, out, err = run("hybrid", "build", tmp_path / "r.yaml", "--out", tmp_path / "h")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "layerz: unknown key" in err
    (tmp_path / "r.yaml").write_text(f"base: {tmp_path / 'a'}\nnorm: {tmp_path / 'b'}\n")
    code, _, err = run("hybrid", "build", tmp_path / "r.yaml", "--out", tmp_path / "h")
    assert code == 1
    assert any(line.split()[1:4] == ["hidden_size", "32", "16"] for line in err.splitlines())
    code, _, err = run("hybrid", "show", tmp_path / "a")
    assert (code, "holds no hybrid" in err) == (1, True)


def test_new_mixers_are_proposed_built_healed_and_pushed(run, make_model, tiny_tokenizer, tmp_path, hub):
    from transformers import AutoModelForCausalLM

    from hf_layertracer import DiagnosisConfig, Probe, diagnose

    model = make_model("Llama")
    model.save_pretrained(tmp_path / "a")
    tiny_tokenizer.save_pretrained(tmp_path / "a")
    probes = [Probe((5, 80, 31, 7), 10), Probe((9, 8, 7), 4)]
    diagnose(model, probes, config=DiagnosisConfig(perturbation="mixer")).save(tmp_path / "report")
    command = ["propose", tmp_path / "report", "--mixers", 1, "--base", tmp_path / "a"]
    code, out, err = run("hybrid", *command, "--out", tmp_path / "r.yaml")
    assert (code, err) == (0, "")
    assert "move the output least" in out
    code, out, err = run("hybrid", "build", tmp_path / "r.yaml", "--out", tmp_path / "h", "--push", "alice/h")
    assert code == 0, err
    assert f"Pushed: {hub.url}/alice/h/commit/" in out
    (tmp_path / "t.txt").write_text("\n\n".join("The capital city of France is Paris. " * 8 for _ in range(6)))
    command = ["heal", tmp_path / "h", "--data", tmp_path / "t.txt", "--out", tmp_path / "healed", "--steps", 2]
    code, out, err = run("hybrid", *command, "--sequence-length", 16, "--batch-size", 1)
    assert code == 0, err
    assert "alignment: 32 tokens in 2 steps" in out
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "healed")).__name__ == "GraniteMoeHybridForCausalLM"
    code, out, _ = run("hybrid", "show", tmp_path / "healed", "--picture", tmp_path / "p.png")
    assert code == 0
    assert "healed on 32 tokens" in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
