"""Columns of feature maps and totals by stage: activation memory after each layer, receptive field, stride."""

from __future__ import annotations

import csv
import io

import pytest

from costmodel.api import analyze
from costmodel.cli import main
from costmodel.report import render
from costmodel.report.rows import rows_table


@pytest.fixture(scope="module")
def vgg():
    """VGG-16 at batch 1."""
    return analyze("vgg16", hw="a100")


def test_activation_memory_is_that_of_convolutions_and_pooling(vgg) -> None:
    """VGG-16 after each of the first layers: 224*224*64*4 B = 12.25 MiB twice, then 3.0625 MiB out of the pooling."""
    rows = [row for row in vgg.rows() if row.activation_bytes][:3]
    assert [row.op for row in rows] == ["aten.conv2d", "aten.conv2d", "aten.max_pool2d"]
    assert [row.activation_bytes / 2**20 for row in rows] == [12.25, 12.25, 3.0625]
    assert all(row.activation_bytes == 0 for row in vgg.rows() if row.op == "aten.relu")


def test_stages_are_sizes_of_maps_in_order_and_add_up(vgg) -> None:
    stages = {row.name: row for row in vgg.rows(by="stage")}
    assert [name for name in stages if name != "1x1"] == ["224x224", "112x112", "56x56", "28x28", "14x14", "7x7"]
    for field in ("macs", "params", "activation_bytes", "count"):
        assert sum(getattr(row, field) for row in stages.values()) == sum(getattr(row, field) for row in vgg.rows())
    assert stages["56x56"].macs == 9 * 56 * 56 * (128 * 256 + 2 * 256 * 256)


def test_columns_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """conv2_1 of VGG-16 sees 6 + 2*2 = 10 pixels, every 2."""
    asked = "macs,activation_bytes,receptive_field,jump,map_size"
    assert main(["analyze", "vgg16", "--hw", "t4", "--top", "0", "--columns", asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("module"))
    assert all(word in head for word in ("MACs", "act. mem.", "maps", "sees", "every")) and "bound" not in head
    pooled = next(i for i, line in enumerate(lines) if "max_pool2d" in line)
    assert "6x6" in lines[pooled] and "10x10" in lines[pooled + 1] and "112x112" in lines[pooled + 1]


def test_an_unknown_column_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "vgg16", "--hw", "t4", "--columns", "mac"]) == 2
    assert "did you mean macs" in capsys.readouterr().err


def test_a_receptive_field_of_several_operators_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "vgg16", "--hw", "t4", "--by", "stage", "--columns", "receptive_field"]) == 2
    assert "--by op" in capsys.readouterr().err


def test_csv_has_every_column_and_the_terminal_does_not_pay_for_them(vgg) -> None:
    rows = list(csv.DictReader(io.StringIO(render(vgg, "csv"))))
    assert {rows[0][key] for key in ("receptive_field", "jump", "map_size")} == {"3x3", "1", "224x224"}
    assert "receptive_field" not in rows_table(vgg).rows[0]


@pytest.mark.parametrize("by", ["stage", "phase"])
def test_json_by_group_follows_the_schema(vgg, by) -> None:
    import json

    import jsonschema

    from costmodel.report.as_json import schema

    page = json.loads(render(vgg, "json", by=by))
    jsonschema.validate(page, schema())
    assert page["groups"]["by"] == by
    assert sum(row["activation_bytes"] for row in page["groups"]["rows"]) == sum(
        row["activation_bytes"] for row in page["ops"]
    )
