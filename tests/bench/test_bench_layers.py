"""What users time: both sides compute the same, and the cases hold what they say."""

import itertools

import pytest
import torch
from sides import check_sides, tiny

from anynorm.bench.cases import CASES, DTYPES
from anynorm.bench.layers import NORMALIZERS, groups, inputs, ours, placed, theirs


@pytest.mark.parametrize("case", tiny(CASES), ids=lambda case: case.name)
def test_ours_and_torchs_are_equal(case):
    check_sides(case, ours(case), theirs(case))


def test_every_layer_of_torch_is_timed_in_both_types_and_all_phases():
    assert {case.normalizer for case in CASES} == set(NORMALIZERS)
    assert {case.dtype for case in CASES} == set(DTYPES)
    assert {case.phase for case in CASES} == {"forward", "both", "evaluation"}
    assert {case.fusion for case in CASES} == {"plain", "relu", "add+relu"}


def test_names_are_unique_and_cases_that_share_layers_stand_together():
    assert len({case.name for case in CASES}) == len(CASES)
    runs = [key for key, _ in itertools.groupby(CASES, lambda c: (c.setup, c.phase[0] == "e"))]
    assert len(runs) == len(set(runs))


def test_layout_and_type_of_inputs_are_the_cases():
    for case in tiny(CASES):
        x = inputs(case).x
        last = case.layout == "channels_last"
        assert x.is_contiguous(memory_format=torch.channels_last) if last else x.is_contiguous()
        assert x.dtype is {"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype]


def test_parameters_of_batch_norm_are_float32_on_a_gpu():
    case = next(case for case in CASES if (case.normalizer, case.dtype) == ("batch", "bf16"))
    assert ours(case).weight.dtype is torch.bfloat16
    layer = placed(torch.nn.BatchNorm2d(4), case, "meta")
    assert {tensor.dtype for tensor in layer.parameters()} == {torch.float32}


def test_groups_divide_the_channels():
    assert [groups(channels) for channels in (256, 6, 257)] == [32, 6, 1]
