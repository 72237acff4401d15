"""The table of a run, as spreadsheets read it; and what a metric says when it fails."""

import csv

import pytest

from dspex_trio.runs import export


def exported(tmp_path, **prediction):
    outcome = {"success": {"prediction": prediction}}
    export([{"id": "=t1", "outcome": outcome, "variables": {"@v": "+v"}}], tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    return row


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(1)",
        "+1+cmd|' /C calc'!A0",
        "-1+2",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "-",
        "\uff1d1+1",
        "- a list",
        "-3,5",
    ],
)
def test_text_that_a_spreadsheet_would_compute_is_marked_as_text(tmp_path, text):
    assert exported(tmp_path, answer=text)["prediction.answer"] == f"'{text}"


@pytest.mark.parametrize("value", [-3.5, -3, "-3.5", "+49", "-1e-7", "-.5", "four", "a=b", "1-2", "", True])
def test_numbers_and_other_text_stay(tmp_path, value):
    assert exported(tmp_path, answer=value)["prediction.answer"] == str(value)


def test_every_column_is_written_so_also_ids_variables_and_lists(tmp_path):
    row = exported(tmp_path, answers=["=1"])
    assert (row["id"], row["variable.@v"], row["prediction.answers"]) == ("'=t1", "'+v", '["=1"]')
