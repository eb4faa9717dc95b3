"""JSON: the schema that ships holds, integers are exact, and the promised keys are there."""

import json
import math

import jsonschema
import pytest

from costmodel.report import render
from costmodel.report.as_json import document_json, dump_json, schema
from costmodel.report.document import Code, Column, Document, KeyValues, Notes, Paragraph, Table

PROMISED = {
    "model": {"name", "source", "inputs"},
    "hardware": {"name"},
    "execution": {"batch", "dtype", "layout", "mode", "phase"},
    "totals": {
        "flops", "macs", "params", "bytes_read", "bytes_written", "activations", "peak_memory_bytes", "latency_s",
        "latency_low_s", "latency_high_s", "kernels",
    },
    "coverage": {"ops", "costed", "free", "uncosted"},
}  # fmt: skip
PROMISED_OF_OPS = {
    "name", "op", "module", "flops", "macs", "params", "bytes_read", "bytes_written", "latency_s", "bound",
    "algorithm", "kernels",
}  # fmt: skip


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def test_the_promised_keys_are_there(fake):
    value = json.loads(render(fake.realistic(), "json"))
    assert value["schema_version"] == 1
    for part, keys in PROMISED.items():
        assert keys <= value[part].keys()
    assert all(row.keys() >= PROMISED_OF_OPS for row in value["ops"])
    assert value["model"]["inputs"][0]["shape"] == [8, 3, 224, 224]
    assert value["coverage"]["uncosted"][0]["op"] == "torchvision.nms"
    assert {finding["rule"] for finding in value["findings"]} == {"padding"}


@pytest.mark.parametrize("by", ["op", "module", "type"])
def test_one_analysis_follows_the_schema(fake, validator, by):
    value = json.loads(render(fake.realistic(), "json", by=by))
    validator.validate(value)
    assert ("groups" in value) == (by != "op")


def test_an_empty_model_follows_the_schema(fake, validator):
    validator.validate(json.loads(render(fake.FakeAnalysis(operators=()), "json")))


def test_several_analyses_follow_the_schema(fake, validator):
    value = json.loads(render([fake.realistic(hw="t4"), fake.realistic(hw="l4")], "json"))
    validator.validate(value)
    assert [analysis["hardware"]["name"] for analysis in value["analyses"]] == ["t4", "l4"]


@pytest.mark.parametrize(
    "path",
    [("totals", "macs"), ("execution", "phase"), ("coverage", "uncosted"), ("model", "inputs"), ("ops", 0, "bound")],
)
def test_the_schema_misses_a_key_that_is_gone(fake, validator, path):
    value = json.loads(render(fake.realistic(), "json"))
    inside = value
    for step in path[:-1]:
        inside = inside[step]
    del inside[path[-1]]
    assert not validator.is_valid(value)


@pytest.mark.parametrize(("key", "wrong"), [("flops", 1.5), ("latency_s", -1.0), ("params", "25 M")])
def test_the_schema_refuses_wrong_values(fake, validator, key, wrong):
    value = json.loads(render(fake.realistic(), "json"))
    value["totals"][key] = wrong
    assert not validator.is_valid(value)


def test_every_leaf_of_the_schema_is_described():
    def leaves(node):
        if isinstance(node, dict):
            if node.get("type") in ("integer", "number", "string", "array"):
                yield node
            for value in node.values():
                yield from leaves(value)

    undescribed = [leaf for leaf in leaves(schema()["$defs"]) if "description" not in leaf]
    assert undescribed == [{"type": "integer"}, {"type": "string"}]  # values of maps that are described themselves


def test_integers_beyond_floats_are_exact(fake):
    flops = 2**70 + 1
    text = render(fake.FakeAnalysis(operators=(fake.FakeRow(flops=flops),)), "json")
    assert str(flops) in text and json.loads(text)["totals"]["flops"] == flops


def test_rows_add_up_to_the_totals(fake):
    value = json.loads(render(fake.realistic(), "json"))
    for key in ("flops", "matrix_flops", "vector_flops", "macs", "params", "bytes_read", "bytes_written", "kernels"):
        assert sum(row[key] for row in value["ops"]) == value["totals"][key]
    assert math.fsum(row["time_share"] for row in value["ops"]) == pytest.approx(1.0)
    assert value["totals"]["params"] == 25_557_032  # ResNet-50 as torchvision documents it


def test_an_infinite_intensity_is_null_and_nan_is_refused(fake):
    operators = (fake.FakeRow(flops=1, intensity=math.inf),)
    assert (
        json.loads(render(fake.FakeAnalysis(operators=operators), "json"))["ops"][0]["intensity_flop_per_byte"] is None
    )
    with pytest.raises(ValueError, match="JSON"):
        dump_json({"latency_s": math.nan})


def test_any_document_keeps_its_exact_values():
    table = Table(
        columns=(Column(key="n", heading="n", render=lambda n: "about"),), rows=({"n": 12345678901234567890},)
    )
    blocks = (Paragraph("p"), KeyValues((("k", "v"),)), Notes(("n",), "N"), Code("c"), table)
    value = json.loads(dump_json(document_json(Document("t", blocks))))
    assert value["title"] == "t" and [block["kind"] for block in value["blocks"]] == [
        "paragraph", "facts", "notes", "code", "table",
    ]  # fmt: skip
    assert value["blocks"][-1]["rows"] == [{"n": 12345678901234567890}]
