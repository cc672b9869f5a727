import pytest
import torch
from entries import sizes

import anynorm
from anynorm.catalogue import entry
from anynorm.errors import UnknownNameError


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
    renorm = entry("batch-renorm").tune(r_max=1.5).spec.source
    assert (renorm.r_max, renorm.d_max) == (1.5, 5.0)
    assert entry("rms").tune(channels_first=True).spec.pattern.text == "n [c ...]"
    with pytest.raises(UnknownNameError, match='Did you mean "groups"'):
        entry("group").tune(group=4)
    with pytest.raises(anynorm.AnynormError, match="positive whole number"):
        entry("group").tune(groups=0)


def test_the_catalogue_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        anynorm.catalogue["mine"] = entry("batch")  # type: ignore[index]


@pytest.mark.parametrize("name", anynorm.catalogue)
def test_each_entry_builds_a_layer(name):
    layer = anynorm.normalized(torch.nn.Linear(3, 8), name, **sizes(name))
    x = torch.randn(6, 8, 3) if entry(name).spec.pattern.shared == {"..."} else torch.randn(6, 3)
    assert layer(x).shape == (*x.shape[:-1], 8)
