"""A planted cause is named first, its repair is tried, and what would do harm is not offered."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from patients import batches, convolutional, dense, edited, settled
from torch import nn

import anynorm
from anynorm.doctor import doctor
from anynorm.doctor.case import Case
from anynorm.doctor.causes import inputs
from anynorm.doctor.causes.score import Score
from anynorm.doctor.causes.table import CAUSES
from anynorm.doctor.causes.ward import Trial, Ward

WIDE = settled(convolutional(), batches(24, 32))


def fed(change):
    """Changed images without labels."""
    return [change(x) for x, _ in batches(24, 32)]


def first(found):
    return found.causes[0] if found.causes else None


class Shared(nn.Module):
    """One batch norm behind two convolutions whose outputs have other moments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = (nn.Conv2d(3, 8, 3, bias=False) for _ in range(2))
        self.bn, self.head = nn.BatchNorm2d(8), nn.Linear(128, 4)

    def forward(self, x):
        y = self.bn(self.one(x)).relu() + self.bn(4 * self.two(x) + 3).relu()
        return self.head(y.flatten(1))


class AveragedModel(nn.Module):
    """Averaged weights with the statistics of one model, as torch's class of this name has them."""

    def __init__(self, model):
        super().__init__()
        self.module = edited(averaged, model)
        self.register_buffer("n_averaged", torch.tensor(5))

    def forward(self, x):
        return self.module(x)


def drifted(model):
    """The statistics of an earlier model: all layers, in both directions."""
    torch.manual_seed(3)
    for bn in (model.bn1, model.bn2):
        bn.running_mean += bn.running_var.sqrt() * torch.randn(8)
        bn.running_var *= torch.tensor([0.3, 3.0]).repeat(4)


def averaged(model):
    for layer in (model.conv1, model.conv2):
        layer.weight *= torch.linspace(0.3, 0.8, 8).view(-1, 1, 1, 1)


def young(model):
    for bn in (model.bn1, model.bn2):
        bn.reset_running_stats()
        bn.momentum = 0.01
    model.train()
    for x, _ in batches(10):
        model(x)
    model.eval()


def epsilon(model):
    model.bn1.eps = model.bn2.eps = 3.0


def broken(model):
    model.bn1.running_var[2] = torch.nan


def one(model):
    model.bn2.running_mean += 2 * torch.randn(8) * model.bn2.running_var.sqrt()


def frozen(model):
    model.train()
    model.bn2.requires_grad_(False)


def hasty(model):
    model.bn2.momentum = 0.99


def converted():
    fused = anynorm.BatchNorm2d(8, activation="tanh")
    source = settled(convolutional(bn1=fused, relu1=nn.Identity()))
    model = copy.deepcopy(source)
    model.bn1 = nn.BatchNorm2d(8)
    model.load_state_dict(source.state_dict())
    return doctor(model.eval(), batches(), source=source)


def on(edit):
    return lambda: doctor(edited(edit, WIDE), batches(24, 32))


DROPPED = settled(dense(drop=nn.Dropout(0.5)), batches(24, 32))
PLANTED = [
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: 16 * x)), "x / 16"),
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: x / 255)), "x * 255"),
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: x.flip(1) + 0)), "x.flip(1)"),
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: 4 * x + 8)), "x"),
    ("shared layer", lambda: doctor(settled(Shared()), batches()), "deepcopy"),
    ("averaged weights without statistics", on(averaged), "recalibrate"),
    (
        "averaged weights without statistics",
        lambda: doctor(AveragedModel(WIDE).eval(), batches(24, 32)),
        "recalibrate",
    ),
    (
        "averaged weights without statistics",
        lambda: doctor(WIDE, batches(), averaged=edited(averaged)),
        "recalibrate(averaged",
    ),
    ("ε changed", on(epsilon), "eps = 1e-05"),
    ("too few batches", on(young), "recalibrate"),
    (
        "running statistics that lag behind the weights",
        lambda: doctor(edited(drifted, WIDE), fed(lambda x: x)),
        "recalibrate",
    ),
    ("statistics of bn2 lost or changed", on(one), "recalibrate"),
    ("broken values", on(broken), "reset_running_stats"),
    ("frozen layers whose statistics move", on(frozen), "freeze"),
    ("momentum in the other convention", on(hasty), "momentum = 0.01"),
    ("conversion changed the function", converted, "convert(source"),
    ("another domain", lambda: doctor(WIDE, batches(24, 32), target=batches(shift=3.0)), "target"),
    ("small batches", lambda: doctor(settled(dense()), batches(size=4)), "group"),
    (
        "last batch of one sample",
        lambda: doctor(
            settled(dense()), [*batches(), (torch.randn(1, 3, 6, 6), torch.tensor([1]))]
        ),
        "drop_last",
    ),
    ("dropout in front of batch norm", lambda: doctor(DROPPED, batches(24, 32)), ""),
    ("train mode", lambda: doctor(edited(nn.Module.train, WIDE), batches()), "model.eval()"),
]


@pytest.mark.parametrize(
    ("name", "examine", "fix"),
    [pytest.param(*row, id=f"{row[0]}-{index}") for index, row in enumerate(PLANTED)],
)
def test_a_planted_cause_is_named_first(name, examine, fix):
    found = examine()
    cause = first(found)
    assert cause is not None, found
    assert cause.name == name, str(found)
    assert fix in cause.fix
    assert cause.evidence
    assert cause.effect
    assert cause.findings
    assert all(any(one is f for f in found.findings) for one in cause.findings)


def test_every_row_has_a_planted_cause():
    planted = {row[0] for row in PLANTED}
    assert {row.name for row in CAUSES} - planted == {"statistics of one layer"}


def test_two_causes_are_both_named():
    def both(model):
        hasty(model)
        model.bn2.running_mean += 2 * model.bn2.running_var.sqrt()

    found = doctor(edited(both, WIDE), fed(lambda x: 4 * x + 8))
    assert [cause.name for cause in found.causes] == [
        "input preprocessing",
        "momentum in the other convention",
    ]
    assert found.causes[0].data
    assert {one.layer for one in found.causes[1].findings} == {"bn2"}


def test_the_loss_says_what_a_repair_did():
    def far(model):
        for bn in (model.bn1, model.bn2):
            bn.running_mean += 4 * bn.running_var.sqrt()

    cause = first(doctor(edited(far, WIDE), batches(24, 32)))
    assert "the loss goes from" in cause.effect
    assert "right predictions from" in cause.effect
    assert cause.refused == ""


def test_numbers_that_fit_two_causes_name_both():
    cause = first(doctor(edited(drifted, WIDE), fed(lambda x: x)))
    assert "averaged weights" in cause.sure
    assert "equally well" in cause.sure


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("runs/net_ema.pt", "averaged weights without statistics"),
        ("last.pt swa_state_dict", "averaged weights without statistics"),
        ("schema.pt state_dict", "running statistics that lag behind the weights"),
    ],
)
def test_the_name_of_the_weights_speaks_for_an_average(origin, name):
    cause = first(doctor(edited(drifted, WIDE), fed(lambda x: x), origin=origin))
    assert cause.name == name
    assert cause.sure != "certain"
    assert (origin in cause.evidence) == name.startswith("averaged")
    assert doctor(WIDE, fed(lambda x: x), origin=origin).healthy


class EMA(nn.Identity):
    """A layer whose name has a word for averaged weights, as that of an attention."""


def test_a_layer_inside_that_is_called_an_average_says_nothing():
    model = settled(convolutional(relu1=nn.Sequential(nn.ReLU(), EMA())), batches(24, 32))
    cause = first(doctor(edited(drifted, model), fed(lambda x: x)))
    assert "lag" in cause.name


def _forwards(model, *given, **options):
    calls = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    doctor(model, *given, **options)
    hook.remove()
    return len(calls)


def test_dropout_is_drawn_only_where_a_layer_lies_behind_it():
    data = batches(8)
    behind = settled(dense(drop=nn.Dropout(0.001)))
    before = settled(dense())
    before.add_module("drop", nn.Dropout(0.2))
    wanted = {"checks": [1, 2]}
    fewest = _forwards(settled(dense()), data, **wanted)
    # Once, to see that nothing lies behind it; four draws and one without else.
    assert _forwards(before.eval(), data, **wanted) == fewest + 1
    assert _forwards(behind, data, **wanted) == fewest + 5 * len(data)


def test_what_was_measured_is_kept_until_the_model_or_the_data_change():
    ward, numbers = Ward(Case(WIDE), [], batches(2), None), iter(range(9))
    assert [ward.once("a", lambda: next(numbers)) for _ in range(2)] == [0, 0]
    assert ward.once("b", lambda: next(numbers)) == 1
    ward.fed(batches(3))
    assert [ward.once("a", lambda: next(numbers)) for _ in range(2)] == [2, 2]
    ward.repaired(lambda model: model)
    assert ward.once("a", lambda: next(numbers)) == 3


def test_with_labels_the_loss_overrules_the_statistics():
    def slightly(model):
        model.bn1.running_mean[0] += 0.6 * model.bn1.running_var[0].sqrt()

    model = edited(slightly, WIDE)
    found = doctor(model, batches(24, 32))
    assert found.healthy
    [one] = [f for f in found.findings if f.layer == "bn1" and f.check == 1]
    assert one.severity == "info"
    assert "the loss shows no harm" in one.message
    result = found.fix()
    assert result.receipt.changed == ()
    assert any("nothing to repair" in note.text for note in result.receipt.refused)
    assert doctor(model, fed(lambda x: x)).status == 1


def test_statistics_of_too_few_samples_are_no_repair():
    def slightly(model):
        model.bn.running_mean += 0.15 * model.bn.running_var.sqrt()

    torch.manual_seed(0)
    model = edited(slightly, settled(dense(), batches(24, 32)))
    found = doctor(model, [x for x, _ in batches(1, 4)], checks=[1, 2, 4])
    for cause in found.causes:
        assert "too few" in cause.refused, cause
    assert found.fix().receipt.changed == ()


def test_a_repair_that_raises_the_loss_is_not_offered(monkeypatch):
    before, after = (Score(losses=[loss], off={"bn1": 1.0, "bn2": 1.0}) for loss in (0.1, 0.9))
    trial = Trial(before, after)
    monkeypatch.setattr(Ward, "recalibrated", lambda *_, **__: trial)
    found = doctor(edited(young, WIDE), batches(24, 32))
    cause = first(found)
    assert cause.refused == "it raises the loss from 0.1 to 0.9"
    assert cause.fix == ""
    result = found.fix()
    assert result.receipt.changed == ()
    assert any("raises the loss" in note.text for note in result.receipt.refused)


def test_a_few_batches_are_no_excuse_for_wrong_data():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    images = [torch.rand(64, 1, 8, 8) for _ in range(60)]
    with torch.no_grad():
        for x in images:  # leave 0.2% of the initial statistics
            model(x)
    found = doctor(model.eval(), [255 * x for x in images[:20]])
    assert [(cause.name, cause.data) for cause in found.causes] == [("input preprocessing", True)]
    assert found.fix().receipt.changed == ()


def test_wrong_data_write_nothing_unless_they_are_accepted():
    found = doctor(WIDE, fed(lambda x: 16 * x))
    kept = found.fix()
    assert kept.receipt.changed == ()
    assert all("preprocessing" in note.text for note in kept.receipt.refused)
    assert any("--accept-data" in note.text for note in kept.receipt.refused)
    accepted = found.fix(accept_data=True)
    assert {note.layer for note in accepted.receipt.changed} == {"bn1", "bn2"}
    assert doctor(accepted.model, fed(lambda x: 16 * x)).healthy


def test_epsilon_is_set_back():
    found = doctor(edited(epsilon, WIDE), batches(24, 32))
    result = found.fix()
    assert result.model.bn1.eps == result.model.bn2.eps == 1e-5
    assert any("ε 3 is now 1e-05" in note.text for note in result.receipt.changed)
    torch.testing.assert_close(result.model.bn2.running_mean, WIDE.bn2.running_mean)


def test_one_broken_layer_is_recomputed_alone():
    result = doctor(edited(broken, WIDE), batches(24, 32)).fix()
    assert {note.layer for note in result.receipt.changed} == {"bn1"}
    assert torch.equal(result.model.bn2.running_mean, WIDE.bn2.running_mean)


class Uncopied(nn.Module):
    """Refuses to be copied."""

    def __init__(self):
        super().__init__()
        self.net = edited(young, WIDE)

    def forward(self, x):
        return self.net(x)

    def __deepcopy__(self, memo):
        raise RuntimeError("holds a handle")


def test_a_model_that_cannot_be_copied_is_diagnosed_all_the_same():
    found = doctor(Uncopied().eval(), batches(24, 32))
    assert first(found).name == "too few batches"
    assert "cannot be copied (holds a handle)" in first(found).effect


def test_causes_are_plain_values():
    found = doctor(edited(young, WIDE), batches(24, 32))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    [cause] = plain["causes"]
    assert [plain["findings"][at]["check"] for at in cause["findings"]]
    assert cause["name"] == "too few batches"


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_sample_gives_a_diagnosis(count):
    found = doctor(edited(young, WIDE), [(x[:count], y[:count]) for x, y in batches(1)])
    assert found.status in (1, 3)


def test_labels_of_another_length_skip_the_loss():
    found = doctor(edited(young, WIDE), [(x, y[:3]) for x, y in batches()])
    assert any(one.check == 3 for one in found.skipped)
    assert first(found).name == "too few batches"
    assert "the loss" not in first(found).effect


def test_batches_of_another_shape_are_an_error_by_name():
    with pytest.raises(anynorm.AnynormError, match="calling Sequential on a batch"):
        doctor(WIDE, [torch.randn(4, 5)])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda x: 255 * x, "x / 255"),
        (lambda x: 256 * x, "x / 255"),  # a fit cannot tell them apart: the usual one is named
        (lambda x: x / 255, "x * 255"),
        (lambda x: 16 * x, "x / 16"),
    ],
)
def test_the_factor_that_is_usual_is_named(change, code):
    assert first(doctor(WIDE, fed(change))).fix.startswith(f"x = {code} ")


def test_a_shift_is_written_with_its_sign():
    found = first(doctor(WIDE, fed(lambda x: x + 2)))
    assert found.name == "input preprocessing"
    assert "x - 2" in found.fix or "x - 1.9" in found.fix


def test_without_labels_a_likely_cause_is_no_licence_to_write():
    model = edited(drifted, WIDE)
    found = doctor(model, fed(lambda x: x))
    cause = first(found)
    assert "without labels" in cause.unproven
    assert "recalibrate" in cause.fix
    kept = found.fix()
    assert kept.receipt.changed == ()
    assert all("--accept-data" in note.text for note in kept.receipt.refused)
    assert {note.layer for note in found.fix(accept_data=True).receipt.changed} == {"bn1", "bn2"}
    labelled = doctor(edited(averaged, WIDE), batches(24, 32))
    assert first(labelled).unproven == ""
    certain = doctor(edited(young, WIDE), fed(lambda x: x))
    assert first(certain).unproven == ""
    assert certain.fix().receipt.changed


def test_a_usual_epsilon_is_not_blamed_for_other_data(monkeypatch):
    """With another ε the loss may fall although nothing fits, as it did in a MobileNetV2."""

    def smaller(model):  # variances near ε, so that another ε changes the loss
        for conv, bn in ((model.conv1, model.bn1), (model.conv2, model.bn2)):
            conv.weight *= 0.02
            bn.running_mean *= 0.02
            bn.running_var *= 0.02**2

    model = edited(smaller, WIDE)
    data = [(0.1 * x + 0.5, y) for x, y in batches(24, 32)]
    off = {"bn1": 1.0, "bn2": 1.0}
    lower = Trial(Score(losses=[9.0], off=off), Score(losses=[0.0], off=off))
    monkeypatch.setattr(Ward, "trial", lambda *_: lower)
    names = [cause.name for cause in doctor(model, data).causes]
    assert "input preprocessing" in names
    assert "ε changed" not in names


@pytest.mark.parametrize(("losses", "chosen"), [((0.5, 0.3), "second"), ((None, None), "first")])
def test_the_loss_chooses_the_change_of_the_input_and_without_labels_the_fit(losses, chosen):
    tried = [
        (name, Score(losses=[] if loss is None else [loss], off={"bn": off}))
        for name, loss, off in zip(("first", "second"), losses, (0.2, 0.4), strict=True)
    ]
    assert inputs._best(tried, "bn", 1.5) == chosen


@pytest.mark.parametrize(("recomputed", "holds"), [(2.3, True), (0.35, False), (0.2, False)])
def test_a_change_of_the_input_must_do_better_than_statistics_that_fit_the_input(recomputed, holds):
    before, after = Score(losses=[13.6]), Score(losses=[0.35])
    ward = SimpleNamespace(recalibrated=lambda: Trial(before, Score(losses=[recomputed])))
    assert inputs._beats_recomputing(ward, before, after) == holds


@pytest.mark.parametrize(
    ("usual", "left", "channels", "holds"),
    [(True, 0.01, 8, True), (True, 0.1, 8, False), (True, 0.01, 6, False), (False, 0.01, 8, False)],
)
def test_a_usual_mistake_that_fits_many_channels_is_sure_behind_another_fault(
    usual, left, channels, holds
):
    candidate = inputs._Candidate(lambda x: x / 16, "is 16 times too large", "x / 16", usual=usual)
    record = SimpleNamespace(norm=SimpleNamespace(channels=channels))
    assert inputs._is_sure(candidate, record, left * 2.8, 2.8) == holds
