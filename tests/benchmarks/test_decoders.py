"""The benchmark of trained decoders: what is measured, and that the page shows it."""

import load_benchmarks  # noqa: F401
import pytest
import torch
from benchmarks import ROOT, decoders
from benchmarks.result_files import read

pytest.importorskip("transformers")


def test_the_page_has_the_tables_of_the_result():
    text = (ROOT / "docs" / "doctor.md").read_text()
    for name, words in decoders.tables(read(decoders.FILE)["rows"]).items():
        assert f"<!-- {name} -->\n{words}\n<!-- end of {name} -->" in text


@pytest.mark.parametrize("check", decoders.faults)
def test_faults_are_found_also_in_a_decoder_that_is_not_trained(check):
    model = decoders.build().eval()
    assert not decoders.found(model)
    assert str(check) in decoders.found(decoders.planted(model, decoders.faults[check]))


def test_training_in_16_bits_alone_is_told_from_master_weights():
    found = {}
    for precision in decoders.PRECISIONS[1:]:
        model, optimizer = decoders.train(precision, seed=0, steps=2)
        with torch.no_grad():
            if "master" in precision:  # two steps do not yet move γ in 16 bits
                for parameter in model.model.norm.parameters():
                    parameter.add_(0.01)
        found[precision] = decoders.found(model, optimizer)
    assert found["bfloat16 alone"]["27"] == "warning"
    assert found["bfloat16 with float32 master weights"].get("27", "info") == "info"
