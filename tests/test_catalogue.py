import pytest
import torch

import anynorm
from anynorm.catalogue import entry
from anynorm.errors import UnknownNameError

FIRST_ENTRIES = [
    *("none", "batch", "batch-per-activation", "layer", "layer-over-channels", "instance"),
    *("group", "rms", "filter-response", "ghost", "l1-batch", "lp-batch", "linf-batch"),
    *("weight", "weight-standardization", "cosine", "zca", "pca"),
]


def test_the_first_entries_are_there():
    assert list(anynorm.catalogue) == FIRST_ENTRIES


def test_names_are_looked_up_with_a_suggestion():
    assert entry("batch").twin.startswith("BatchNorm")
    with pytest.raises(
        UnknownNameError, match=r'no normalizer named \'bacth\'\. Did you mean "batch"'
    ):
        anynorm.create("bacth", 8)


def test_every_entry_names_its_source():
    for row in anynorm.catalogue.values():
        assert row.summary
        assert row.name == "none" or "arXiv:" in row.paper


def test_options_reach_the_specification():
    assert entry("lp-batch").tune(p=3.0).spec.scale.p == 3.0
    assert entry("l1-batch").tune(constant=1.0).spec.scale.factor(9) == 1.0
    assert entry("group").tune(groups=4).sizes == {"g": 4}
    assert entry("rms").tune(channels_first=True).spec.pattern.text == "n [c ...]"
    with pytest.raises(UnknownNameError, match='Did you mean "groups"'):
        entry("group").tune(group=4)
    with pytest.raises(anynorm.AnynormError, match="positive whole number"):
        entry("group").tune(groups=0)


def test_the_catalogue_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        anynorm.catalogue["mine"] = entry("batch")  # type: ignore[index]


@pytest.mark.parametrize("name", FIRST_ENTRIES)
def test_each_entry_builds_a_layer(name):
    layer = anynorm.normalized(torch.nn.Linear(3, 8), name, **options(name))
    x = torch.randn(4, 8, 3) if entry(name).spec.pattern.shared == {"..."} else torch.randn(4, 3)
    assert layer(x).shape == (*x.shape[:-1], 8)


def options(name):
    known = {"groups": 2, "size": 2}
    return {option: known[option] for option in entry(name).options if option in known}
