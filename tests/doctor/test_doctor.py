"""The doctor disturbs nothing, takes what loaders give, and says what it lacks."""

import copy
import json
import random
from collections import UserDict

import numpy as np
import pytest
import torch
from patients import batches, convolutional, dense, settled
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import anynorm
from anynorm.doctor import CHECKS, doctor

MODEL = settled(convolutional())


def faulty():
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        model.bn1.running_mean += 3
        model.bn2.running_var *= 2
    return model


def state_of(model):
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters()}
    modes = {f"{name}.training": module.training for name, module in model.named_modules()}
    hooks = {
        n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()
    }
    return {**model.state_dict(), **gradients, **modes, "hooks": hooks}


def same(one, other):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_nothing_changes_by_diagnosing():
    model = settled(dense(drop=nn.Dropout(0.3)), steps=3).train()
    model.head.eval()
    model(batches()[0][0]).sum().backward()
    optimizer = torch.optim.AdamW(model.parameters())
    others = {"averaged": copy.deepcopy(model), "source": copy.deepcopy(model)}
    models = [model, *others.values()]
    before = [copy.deepcopy(state_of(one)) for one in models]
    random_before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    found = doctor(
        model, batches(), optimizer=optimizer, target=batches(), accumulation=2, **others
    )
    assert {s.check for s in found.skipped} == {14}
    assert all(same(a, state_of(b)) for a, b in zip(before, models, strict=True))
    assert torch.equal(torch.get_rng_state(), random_before[0])
    assert np.array_equal(np.random.get_state()[1], random_before[1])
    assert random.getstate() == random_before[2]


def test_everything_is_as_before_when_the_model_raises_midway():
    model = copy.deepcopy(MODEL).train()
    before = copy.deepcopy(state_of(model))
    with pytest.raises(anynorm.AnynormError, match=r"calling Sequential on a batch"):
        doctor(model, [*batches(2), torch.zeros(3, 5)])
    assert same(before, state_of(model))


def found_by(model, data, **options):
    return [(f.check, f.layer) for f in doctor(model, data, **options).findings]


class Keyed(nn.Module):
    """Takes keyword arguments and returns a dict, as language models do."""

    def __init__(self):
        super().__init__()
        self.net = copy.deepcopy(faulty())

    def forward(self, pixels, labels=None):
        return {"logits": self.net(pixels), "hidden": pixels}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: [list(pair) for pair in data],
        lambda data: (pair for pair in data),
        lambda data: DataLoader(TensorDataset(*map(torch.cat, zip(*data, strict=True))), 16),
    ],
    ids=["tuples", "lists", "generator", "loader"],
)
def test_batches_of_any_kind(wrap):
    expected = found_by(faulty(), batches())
    assert (1, "bn1") in expected
    assert (3, "bn1") in expected
    assert found_by(faulty(), wrap(batches())) == expected


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_batches_that_are_mappings(kind):
    data = [kind(pixels=x, labels=y) for x, y in batches()]
    found = found_by(Keyed(), data)
    assert (1, "net.bn1") in found
    assert (3, "net.bn1") in found


def test_batches_without_targets_skip_the_loss():
    found = doctor(faulty(), [x for x, _ in batches()])
    assert any(s.check == 3 and "loss=" in s.needs for s in found.skipped)
    assert (1, "bn1") in [(f.check, f.layer) for f in found.findings]


def test_a_loss_of_ones_own_and_floating_targets():
    with torch.no_grad():
        data = [(x, MODEL(x)) for x, _ in batches()]
        far = copy.deepcopy(MODEL)
        far.bn2.running_mean += 5
    assert (3, "bn2") in found_by(far, data)
    assert found_by(MODEL, data, checks=[3]) == []

    def loss(output, batch):
        return (output - batch["wanted"]).abs().mean()

    keyed = [{"x": x, "wanted": y} for x, y in data]
    options = {"loss": loss, "checks": [3], "forward": lambda model, batch: model(batch["x"])}
    assert found_by(far, keyed, **options) == [(3, "bn2")]
    assert found_by(MODEL, keyed, **options) == []


def test_forward_says_how_the_model_is_called():
    data = [{"image": x, "class": y} for x, y in batches()]
    found = found_by(faulty(), data, forward=lambda model, batch: model(batch["image"]))
    assert (1, "bn1") in found


def test_the_modules_alone():
    model = copy.deepcopy(MODEL)
    model.bn1.momentum = 0.9
    found = doctor(model)
    assert [(f.check, f.layer) for f in found.findings] == [(7, "bn1")]
    needy = {s.check for s in found.skipped}
    assert needy == {1, 2, 3, 5, 6, *range(11, 19), 21, 22, 23, 24, 28, 29, 30, 31}
    assert "batches" in str(found.skipped[0])


@pytest.mark.parametrize("empty", [[], iter([]), (x for x in ())])
def test_no_batches_is_an_error(empty):
    with pytest.raises(anynorm.AnynormError, match="no batches"):
        doctor(MODEL, empty)


def test_a_generator_that_ran_dry():
    data = iter(batches(3))
    doctor(MODEL, data, checks=[1])
    with pytest.raises(anynorm.AnynormError, match="already used is empty"):
        doctor(MODEL, data, checks=[1])


def test_one_iterator_for_two_purposes_is_refused():
    data = iter(batches())
    with pytest.raises(anynorm.AnynormError, match="give two iterators"):
        doctor(MODEL, data, target=data)


def test_a_single_batch_that_is_no_loader():
    with pytest.raises(anynorm.AnynormError, match=r"\[batch\]"):
        doctor(MODEL, 3)


@pytest.mark.parametrize("checks", [[0], [len(CHECKS) + 1], ["1"], [[1]], 7])
def test_unknown_checks(checks):
    with pytest.raises(anynorm.AnynormError, match=f"1 to {len(CHECKS)}"):
        doctor(MODEL, checks=checks)


@pytest.mark.parametrize("options", [{"accumulation": 0}, {"steps": 0}])
def test_counts_below_one(options):
    with pytest.raises(anynorm.AnynormError, match="give 1 or more"):
        doctor(MODEL, **options)


def test_lazy_layers_must_have_seen_an_input():
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(anynorm.AnynormError, match="Call the model once"):
        doctor(model, batches())
    model(torch.randn(4, 5))
    assert (4, "1") in found_by(model, None)


def test_a_model_without_normalization_was_not_examined_and_says_so():
    found = doctor(nn.Sequential(nn.Flatten(), nn.Linear(108, 4)), batches())
    assert (found.status, found.healthy, found.findings) == (3, False, ())
    assert "nothing was examined" in found.facts["note"]
    assert "1 Flatten, 1 Linear" in found.facts["note"]


def test_weights_that_are_not_finite_are_a_finding_and_nothing_crashes():
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = torch.nan
        model.head.bias[1] = torch.inf
    found = doctor(model, batches(), accumulation=2, target=batches(), averaged=model, source=model)
    named = [f.numbers["parameter"] for f in found.findings if f.check == 9]
    assert named == ["conv1.weight", "head.bias"]
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_model_may_be_its_own_average():
    model = settled(dense(drop=nn.Dropout(0.2)))
    found = doctor(model, batches(), averaged=model, checks=[2, 13, 17]).findings
    measured = {f.check: f.numbers.get("variance of the data") for f in found}
    assert set(measured) == {2, 13, 17}
    assert measured[2] == measured[13]


def test_what_is_off_on_the_models_own_batches_is_no_shift():
    model = faulty()
    both = doctor(model, batches(), target=batches(), checks=[1, 2, 23])
    assert {f.check for f in both.findings} == {1, 2}
    shifted = doctor(model, batches(), target=batches(shift=20), checks=[23])
    assert "bn1" in [f.layer for f in shifted.findings]
    alone = doctor(model, target=batches(), checks=[23])
    assert [f.layer for f in alone.findings] == ["bn1", "bn2"]


def test_a_layer_that_no_batch_reaches_is_information():
    model = copy.deepcopy(MODEL)
    model.spare = nn.BatchNorm2d(3)
    model.forward = lambda x: MODEL(x)
    found = [f for f in doctor(model, batches()).findings if f.layer == "spare"]
    assert [(f.check, f.severity) for f in found] == [(4, "info")]


class Several(nn.Module):
    """Outputs with the samples on axis 0, on axis 1, on two axes, and on none."""

    def __init__(self, mixed):
        super().__init__()
        self.net, self.mixed = copy.deepcopy(MODEL), mixed

    def forward(self, x):
        y = self.net(x)
        stacked = torch.stack([y, y + y.mean(0) * self.mixed])
        return {"y": y, "stacked": stacked, "pairs": y @ y.T, "mean": y.mean()}


@pytest.mark.parametrize(("mixed", "found"), [(0, []), (1, [(21, "")])])
def test_only_outputs_of_single_samples_are_compared(mixed, found):
    assert found_by(Several(mixed), batches(), checks=[21]) == found


def test_outputs_without_samples_cannot_be_compared():
    [skipped] = doctor(
        MODEL, batches(), forward=lambda model, batch: model(batch[0]).mean(), checks=[21]
    ).skipped
    assert skipped.needs == "an output with an axis of samples"


class Choosy(nn.Module):
    """Rounding decides which of two equal sums is larger; `mixed` batches change the output."""

    def __init__(self, mixed):
        super().__init__()
        self.net, self.mixed = convolutional(), mixed

    def forward(self, x):
        scores = self.net(x)
        if self.mixed:
            return scores - scores.mean(0)
        # As matrix products of other sizes do, the sum rounds by the number of samples.
        rounding = len(x) * 1e-7 if x.dtype == torch.float32 else 0.0
        return torch.where(scores - scores + rounding > 4e-7, 1.0, -1.0)


def test_a_choice_that_rounding_tips_is_no_dependence_on_the_batch():
    assert doctor(Choosy(mixed=False), batches(), checks=[21]).findings == ()
    [found] = doctor(Choosy(mixed=True), batches(), checks=[21]).findings
    assert (found.severity, found.layer) == ("error", "")


def test_two_single_samples_are_enough_to_run():
    data = [(x[:1], y[:1]) for x, y in batches(2)]
    assert doctor(MODEL, data).facts["samples"] == 2
    assert doctor(settled(dense()), data).facts["samples"] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(dtype):
    model = copy.deepcopy(faulty()).to(dtype)
    assert (1, "bn1") in found_by(model, [(x.to(dtype), y) for x, y in batches()])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no second device")
def test_a_model_on_another_device_than_its_batches():
    model = copy.deepcopy(faulty()).cuda()
    assert found_by(model, batches()) == found_by(faulty(), batches())


def test_batches_that_draw_random_numbers_are_left_their_own():
    def drawn():
        torch.manual_seed(5)
        for _ in range(4):
            yield torch.randn(8, 3, 6, 6)

    seen = []
    model = settled(convolutional(relu1=nn.Dropout(0.5)), steps=1)
    with torch.no_grad():
        doctor(
            model, drawn(), forward=lambda m, x: (seen.append(x.clone()), m(x))[1], checks=[1, 17]
        )
    assert len({x.double().sum().item() for x in seen if len(x) == 8}) == 4


def test_findings_come_by_severity_and_causes_before_consequences():
    found = doctor(faulty(), batches()).findings
    ranks = [("error", "warning", "info").index(f.severity) for f in found]
    assert ranks == sorted(ranks)
    means = [f for f in found if f.check == 1 and f.severity == "error"]
    assert means[0].layer == "bn1"
    second = next(f for f in found if f.check in (1, 2) and f.layer == "bn2")
    assert second.numbers["first off"] == "bn1"
    assert "the earlier layer 'bn1'" in second.message


def test_the_result_is_plain_values():
    found = doctor(faulty(), batches())
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["status"] == found.status == 1
    assert [row["check"] for row in plain["checks"]] == [check.number for check in CHECKS]
    assert {row["state"] for row in plain["checks"]} == {"found", "healthy", "skipped"}
    assert len(plain["findings"]) == len(found.findings)


def test_the_name_in_the_library_is_the_function():
    assert anynorm.doctor(MODEL, checks=[7]).healthy
    assert isinstance(anynorm.doctor(MODEL, checks=[7]), anynorm.Diagnosis)
