"""Reports side by side, as rows of numbers."""

from __future__ import annotations

from support.made_reports import make_report

from hf_layertracer.report.comparison import comparison_rows, write_comparison


def test_the_error_of_a_single_draw_is_missing_and_not_zero(tmp_path):
    single = {"sensitivity__draws": 1, "sensitivity__stderr": [0.0] * 6, "sensitivity__shallow_minus_deep_stderr": 0.0}
    reports = {"many": make_report(), "single": make_report(**single)}
    assert [row["shallow_minus_deep_stderr"] for row in comparison_rows(reports)] == [0.015, None]
    write_comparison(reports, tmp_path / "both.csv")
    names, _, last = [line.split(",") for line in (tmp_path / "both.csv").read_text().splitlines()]
    assert last[names.index("shallow_minus_deep_stderr")] == ""
