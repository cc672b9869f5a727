"""The doctor on networks of others: how a diagnosis is judged, and what was measured."""

import copy

import pytest
import torch
from torch import nn


def network(**changes):
    """A small network in place of a published one."""
    from benchmarks.pretrained import Network

    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, bias=False)
    model = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    x = torch.rand(96, 3, 8, 8)
    for _ in range(80):
        model(x - 0.5)
    with torch.no_grad():
        labels = model.eval()(x - 0.5).argmax(1)
    given = {"build": lambda: model, "read": lambda: (x, labels), "prepare": lambda x: x - 0.5}
    return Network(name="a net", source="a-package", labels="its own", **{**given, **changes})


def fault(name):
    from benchmarks.doctor_pretrained import FAULTS

    [found] = [one for one in FAULTS if one.name == name]
    return found


@pytest.mark.parametrize(("name", "first"), [("nothing", False), ("0 to 255 for 0 to 1", True)])
def test_a_planted_fault_is_judged_by_the_first_cause(name, first):
    from benchmarks.doctor_pretrained import examine, harmed

    whole = network()
    before = copy.deepcopy(whole.build().state_dict())
    row = examine(whole, fault(name))
    assert (row["first"], row["status"]) == (first, int(first))
    assert row["before"]["right"] == 1.0
    assert not harmed(row)
    after = whole.build().state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_table_counts_what_was_planted_and_what_did_harm():
    from benchmarks.doctor_pretrained import table

    def row(name, first, loss, **findings):
        measured = {"before": {"loss": 1.0, "right": 0.9}, "after": {"loss": loss, "right": 0.5}}
        causes = [{"name": "a cause"}] if findings else []
        kept = {"status": int(bool(findings)), "findings": findings, "causes": causes}
        return {"fault": name, "first": first, "named": first, **kept, **measured}

    rows = [
        row("nothing", False, 1.0),
        row("nothing, no labels", False, 1.0, **{"1 error": 3}),
        row("ε 0.1", True, 0.5, **{"3 error": 1}),
        row("momentum 0.99", False, 1.5, **{"7 warning": 1}),
    ]
    kept = {"name": "a net", "source": "a-package", "labels": "its own", "samples": 9}
    text = table({"networks": [{**kept, "rows": rows}], "skipped": {"b net": "not installed"}})
    assert "first cause in 1 of 2 cases" in text
    assert "with labels 0 of 1 diagnoses have errors" in text
    assert "raised the loss on right data in 1 of 4" in text
    assert (
        "| a net | momentum 0.99 | 1 | a cause (not the planted one) | 1 | 1.5 | 90 → 50 |" in text
    )
    assert "not measured: b net: not installed" in text


def test_a_package_that_is_not_installed_is_named():
    from benchmarks.pretrained import found_in

    from anynorm.errors import AnynormError

    with pytest.raises(AnynormError, match="no_such_package is not installed"):
        found_in("no_such_package", "weights.pth")
    assert found_in("sklearn", "datasets/images/china.jpg").is_file()


def test_networks_of_others_were_measured():
    from benchmarks.doctor_pretrained import FAULTS, FILE
    from benchmarks.result_files import read

    found = read(FILE)["networks"]
    assert len(found) >= 3
    names = {one.name for one in FAULTS}
    assert all(row["fault"] in names for one in found for row in one["rows"])
