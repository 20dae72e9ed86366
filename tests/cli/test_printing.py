"""What commands print of a report."""

from __future__ import annotations

from support.made_reports import make_report

from hf_layertracer.cli.printing import print_report


def test_errors_of_a_single_draw_are_left_out(capsys):
    print_report(make_report())
    known = capsys.readouterr().out
    assert "0.600 ± 0.020 bits" in known
    assert "+0.242 ± 0.015 bits" in known
    print_report(make_report(sensitivity__draws=1, sensitivity__stderr=[0.0] * 6))
    single = capsys.readouterr().out
    assert "+0.242 bits" in single
    assert "±" not in single
