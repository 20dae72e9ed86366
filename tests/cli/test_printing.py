"""What commands print of a report."""

from __future__ import annotations

import pytest
from rich.console import Console
from support.made_reports import make_report

from hf_layertracer.cli.printing import print_report, print_result_table
from hf_layertracer.trials.tables import ResultTable


def test_errors_of_a_single_draw_are_left_out(capsys):
    print_report(make_report())
    known = capsys.readouterr().out
    assert "0.600 ± 0.020 bits" in known
    assert "+0.242 ± 0.015 bits" in known
    print_report(make_report(sensitivity__draws=1, sensitivity__stderr=[0.0] * 6))
    single = capsys.readouterr().out
    assert "+0.242 bits" in single
    assert "±" not in single


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_wide_table_is_printed_in_parts_without_breaking_a_word(capsys, width):
    columns = ["arm", "learned (new/bits_per_byte)", "± items", "forgotten (old/bits_per_byte)", "± seeds", ""]
    row = [
        "freeze-shallow",
        "+0.5427 [+0.4865, +0.5990]",
        "0.0167",
        "-0.5725 [-0.6370, -0.5079]",
        "0.0159",
        "untouched",
    ]
    print_result_table(Console(width=width), ResultTable("Learned", columns, [row], "How to read it."))
    out = capsys.readouterr().out
    for word in " ".join(columns + row).split():
        assert word in out
    assert max(map(len, out.splitlines())) <= width
    assert out.count("continued") == (out.count("freeze-shallow") - 1)
    assert out.count("How to read it.") == 1
