"""Figures, published rows and their computation: pure, so that no run can hide what a figure means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from keyong.bench import everything, round
from keyong.bench.certificate import write_certificate
from keyong.bench.figure import Figure, over, percentile
from keyong.bench.flower import Mark, poll_share
from keyong.bench.line import between
from keyong.bench.memory import ratio
from keyong.bench.report import demand, number, show
from keyong.bench.rows import BENCHES, ROWS, MissingFigureError, check_complete, published
from keyong.bench.verify import FULL_ENTRIES, Run, Runs, figures
from keyong.cli import _state


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    twenty = [float(number) for number in range(20, 0, -1)]
    assert percentile(twenty, 95) == 19
    assert percentile([*twenty, 21.0], 95) == 20, "19 of 21 are fewer than 95 of 100"
    assert percentile(twenty[:10], 95) == 20, "of few, the largest"
    assert percentile([float(number) for number in range(1, 101)], 99) == 99
    assert percentile([3.0], 95) == 3


def test_a_figure_holds_on_its_side_of_the_target() -> None:
    assert Figure("f", 1.0, "s", 1.0).holds is True
    assert Figure("f", 1.1, "s", 1.0).holds is False
    assert Figure("f", 6000, "1/s", 5000, "at least").holds is True
    assert Figure("f", 4999, "1/s", 5000, "at least").holds is False
    assert Figure("f", float("nan"), "s", 1.0).holds is False
    assert Figure("f", 1.0, "s").holds is None


def test_a_document_names_what_the_design_asks_for() -> None:
    document = published("round-seconds", 0.05, compared_with="another", other=0.5).document()
    assert {"figure", "value", "unit", "target", "holds", "compared_with", "ratio"} <= set(document)
    assert (document["ratio"], document["target"], document["holds"]) == (0.1, 0.1, True)
    assert published("round-seconds", 0.05, compared_with="another").compared_with == ""
    assert over(1.0, None) is None and over(1.0, 0.0) is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.figure)
def test_each_published_row_fails_past_its_target(row: object) -> None:
    assert published(row.figure, row.target).holds is True  # type: ignore[attr-defined]
    past = row.target * (1.001 if row.bound == "at most" else 0.999) or 1  # type: ignore[attr-defined]
    assert published(row.figure, past).holds is False  # type: ignore[attr-defined]


def _all_rows(left_out: str = "") -> dict[str, everything.Bench]:
    def bench(name: str) -> everything.Bench:
        return lambda: [published(row.figure, row.target) for row in ROWS if row.bench == name != left_out]

    return {name: bench(name) for name in BENCHES}


def test_every_benchmark_of_a_row_is_run() -> None:
    assert set(everything.benches(full=False)) == set(BENCHES) == set(everything.benches(full=True))


@pytest.mark.parametrize("bench", BENCHES)
def test_a_missing_row_fails(bench: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(everything.measure(chosen=_all_rows())) == len(ROWS)
    with pytest.raises(MissingFigureError, match=bench):
        everything.measure(chosen=_all_rows(left_out=bench))
    absent = {name: one for name, one in _all_rows().items() if name != bench}
    with pytest.raises(MissingFigureError, match=bench):
        everything.measure(chosen=absent)


def test_a_figure_without_its_target_does_not_fill_a_row() -> None:
    with pytest.raises(MissingFigureError, match="verify-help-seconds"):
        check_complete("start", [Figure("verify-help-seconds", 0.1, "s")])


def test_a_missed_target_is_the_exit_code() -> None:
    demand([Figure("f", 1.0, "s", 2.0), Figure("g", 1.0, "s")])
    with pytest.raises(typer.Exit) as ended:
        demand([Figure("f", 3.0, "s", 2.0)])
    assert ended.value.exit_code == 1


def test_figures_as_json_are_one_object_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_state.get(), "format", "json")
    show([published("round-seconds", 0.05), Figure("other", 2.0, "s")])
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [(line["figure"], line["holds"]) for line in lines] == [("round-seconds", True), ("other", None)]


def test_numbers_keep_the_digits_that_mean_something() -> None:
    assert [number(value) for value in (0.09543, 2.0, 12345.6)] == ["0.09543", "2", "12,346"]


def test_rounds_are_the_time_between_their_ends() -> None:
    assert between([1.5, 2.0, 2.25]) == [1.5, 0.5, 0.25]
    assert between([]) == []


def test_the_share_of_polls_is_of_the_steady_rounds() -> None:
    marks = [Mark(0, 0), Mark(20, 10), Mark(26, 15), Mark(32, 20)]
    assert poll_share(marks) == 10 / 12
    assert poll_share(marks[:2]) == 0.0


def test_the_memory_ratio_holds_in_both_directions() -> None:
    assert ratio(100, 120) == ratio(120, 100) == 1.2


def test_fewer_entries_are_drawn_on_in_a_straight_line_and_said_so() -> None:
    class Seen:
        total = 50_000_000

    def runs(entries: int, full: float, fast: float) -> Runs:
        return Runs(entries, *(Run(seconds, {}, Seen()) for seconds in (full, fast)))  # type: ignore[arg-type]

    before, after = runs(25_000, 1.5, 0.6), runs(100_000, 4.5, 0.9)
    found = {one.figure: one for one in figures(100_000, 400, after, before, 2.0)}
    # half a second, or as much, passes before the first entry: it is counted once
    assert found["verify-seconds"].value == pytest.approx(0.5 + 40.0) and found["verify-seconds"].holds
    assert found["verify-seconds"].ratio == pytest.approx(40.5 / 20)
    assert "drawn on" in found["verify-seconds"].note and "25,000" in found["verify-seconds"].note
    assert found["verify-hashes-seconds"].value == pytest.approx(0.5 + 4.0) and found["verify-hashes-seconds"].holds
    whole = {one.figure: one for one in figures(FULL_ENTRIES, 400, runs(FULL_ENTRIES + 2, 4.0, 0.3), None, 2.0)}
    assert whole["verify-seconds"].value == 4.0 and "drawn on" not in whole["verify-seconds"].note


def test_the_certificate_fits_its_key_and_its_address(tmp_path: Path) -> None:
    import ssl

    certificate, key = write_certificate(tmp_path)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert key.stat().st_mode & 0o077 == 0


def test_flower_is_never_imported_here() -> None:
    program = "import sys, keyong.bench.flower, keyong.bench.round, keyong.bench.rest; sys.exit('flwr' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_start_of_a_job_is_no_part_of_its_rounds_processor_time() -> None:
    started, each = 3.0, 0.12
    long, short = started + 40 * each, started + round.MEMORY_ROUNDS * each
    (figure,) = round._cpu([1.0, 1.0 + long, 1.0 + long + short], 40)
    assert (figure.figure, figure.value) == ("round-cpu-seconds", pytest.approx(each))
    assert round._cpu([1.0, 2.0, 3.0], round.MEMORY_ROUNDS + 1) == []
