"""Every verb on trained networks: how outcomes are judged and shown, and what was measured."""

from pathlib import Path

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


def network(**changes):
    """A small network in place of a published one."""
    from benchmarks.pretrained import Network

    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3)
    head = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.LayerNorm(4))
    model = nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), head)
    x = torch.rand(48, 3, 6, 6)
    for _ in range(80):
        model(x - 0.5)
    with torch.no_grad():
        labels = model.eval()(x - 0.5).argmax(1)
    given = {"build": lambda: model, "read": lambda: (x, labels), "prepare": lambda x: x - 0.5}
    return Network(name="a net", source="a-package", labels="its own", **{**given, **changes})


@pytest.fixture(scope="module")
def row():
    from benchmarks import trained

    verbs = {name: verb for name, verb in trained.VERBS.items() if name != "onnx"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "VERBS", verbs)
        found = trained.tried(network())
    onnx = {"state": "passed", "largest": 1e-7, "status": 0}
    return {**found, "verbs": {**found["verbs"], "onnx": onnx}}


def test_every_verb_passes_on_a_network_of_usual_layers(row):
    assert {name: found["state"] for name, found in row["verbs"].items()} == dict.fromkeys(
        row["verbs"], "passed"
    )
    assert row["verbs"]["fold"]["right"] == [1.0, 1.0]
    assert row["verbs"]["recognize"] == {"state": "passed", "recognized": 1, "of": 1}
    assert row["verbs"]["audit"]["status"] == [1, 0]


def test_the_table_has_what_was_measured_and_what_was_refused(row):
    from benchmarks.trained import table

    refused = {"state": "refused", "words": "no γ here: more words"}
    rows = [row, {**row, "name": "other", "verbs": {**row["verbs"], "gap": refused}}]
    text = table({"networks": rows, "skipped": {"b net": "not installed"}})
    assert "| a net | 1 batch, 1 layer | 1 of 2, " in text
    assert "| refused: no γ here |" in text
    assert "not measured: b net: not installed" in text


def test_a_change_that_should_only_round_is_wrong_if_outputs_differ():
    from benchmarks.attempt import WrongError
    from benchmarks.trained import Subject, _equal

    subject = Subject(network())
    other = network().build()
    with torch.no_grad():
        other[0].weight.mul_(1.1)
    with pytest.raises(WrongError, match="the outputs differ"):
        _equal(subject, other)


def finding(check, layer, **numbers):
    from anynorm.doctor import Finding

    return Finding(check, "", "error", layer, "", numbers, "", "", "", "", 1.0)


def test_claims_of_the_doctor_are_checked_by_a_calculation_of_its_own():
    from benchmarks.trained_claims import confirmed

    model, x = network().build(), network().read()[0] - 0.5
    for check in (1, 2, 10, 19):
        assert confirmed(finding(check, "1"), model, [x]) is False
    idle = finding(16, "0", **{"batch norm": "1"})
    assert confirmed(idle, model, [x]) is True
    assert confirmed(finding(3, ""), model, [x]) is None
    with torch.no_grad():
        model[1].running_mean += 1
        model[1].running_var[0] = 1e-9
        model[1].weight[1] = 0
    for check in (1, 2, 10, 19):
        assert confirmed(finding(check, "1"), model, [x]) is True


def test_text_is_right_only_if_every_character_is():
    from benchmarks.trained_networks import read_right

    labels = torch.tensor([[5, 5, 7], [5, 7, 0]])
    columns = torch.tensor([[5, 0, 5, 5, 7, 0], [0, 5, 5, 7, 7, 0]])
    scores = nn.functional.one_hot(columns, 9).float()
    assert read_right(scores, labels).tolist() == [True, True]
    assert read_right(scores, labels.flip(0)).tolist() == [False, False]


def test_the_page_has_what_was_measured():
    from benchmarks.result_files import read
    from benchmarks.shipped_files import files_table
    from benchmarks.trained import FILE, table

    result = read(FILE)
    assert len(result["networks"]) >= 4
    states = [v["state"] for one in result["networks"] for v in one["verbs"].values()]
    assert "wrong" not in states
    page = Path(__file__).parents[2].joinpath("docs", "trained.md").read_text("utf-8")
    assert table(result) in page
    assert files_table(result["files"]) in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CREPE tiny", "PP-OCR direction", "English text recognizer"])
def test_networks_of_packages_are_right_about_their_inputs(name):
    """A weight in a wrong place would leave chance, which is a half at most.

    The extra `trained` has the packages.
    """
    from benchmarks.trained_networks import TRAINED

    from anynorm.errors import AnynormError

    [one] = [one for one in TRAINED if one.name == name]
    try:
        model, (x, labels) = one.build(), one.read()
    except AnynormError as error:
        pytest.skip(str(error))
    with torch.no_grad():
        found = one.right(model(one.prepare(x)), labels)
    assert float(found.float().mean()) > 0.6
