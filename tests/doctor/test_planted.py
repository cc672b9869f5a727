"""Each check finds a planted fault, at its layer and with its severity, and not where it is not."""

import copy
from dataclasses import dataclass, field

import pytest
import torch
from patients import Stack, batches, convolutional, dense, settled, tokens
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import anynorm
from anynorm.doctor import CHECKS, doctor

HEALTHY = settled(convolutional())
DENSE = settled(dense())


@dataclass
class Case:
    """What the doctor is given."""

    model: nn.Module
    batches: object = None
    options: dict = field(default_factory=dict)

    def findings(self, number):
        found = doctor(self.model, self.batches, checks=[number], **self.options)
        assert not found.skipped
        return found.findings


def edited(edit, model=HEALTHY):
    """A copy of the healthy model with a fault."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        edit(model)
    return model


class Twice(nn.Module):
    """One batch norm for two inputs, the second one scaled and moved."""

    def __init__(self, scale, shift):
        super().__init__()
        self.bn, self.scale, self.shift = nn.BatchNorm2d(3), scale, shift

    def forward(self, x):
        return self.bn(x) + self.bn(x.flip(0) * self.scale + self.shift)


class Checkpointed(nn.Module):
    """The first layers are computed again in backward."""

    def __init__(self, again):
        super().__init__()
        self.net, self.again = convolutional(), again

    def forward(self, x):
        first, rest = self.net[:3], self.net[3:]
        return rest(checkpoint(first, x, use_reentrant=False) if self.again else first(x))


def loader(samples, drop_last=False):
    x, y = (torch.cat(part)[:samples] for part in zip(*batches(), strict=True))
    return DataLoader(TensorDataset(x, y), batch_size=16, drop_last=drop_last)


def shifted(model):
    model.bn2.running_mean += model.bn2.running_var.sqrt()


def far(model):
    model.bn2.running_mean += 3 * model.bn2.running_var.sqrt()


def narrow(model):
    model.bn2.running_var *= 2


def fresh(model):
    model.bn1.reset_running_stats()


def hasty(model):
    model.bn1.momentum = 0.9


def frozen(model):
    model.train()
    model.bn2.requires_grad_(False)


def training(model):
    model.train()


def broken(model):
    model.bn1.running_var[2] = torch.nan


def negative(model):
    model.bn2.running_var[2] = -1.0


def not_finite(model):
    model.conv2.weight[0, 0] = torch.inf


def exploded(model):
    model.bn1.running_var[3] *= 1e6


def vanished(model):
    model.bn1.running_var.fill_(1e-6)


def reweighted(model):
    model.conv1.weight *= 2


def dead(model):
    model.bn1.weight[0] = 1e-6


def constant(model):
    model.conv1.weight[0] = 0.0
    model.bn1.running_mean[0], model.bn1.running_var[0] = 0.0, 0.0


def zero(model):
    model.bn2.weight.zero_()


def decaying(model, rate):
    norms = [p for layer in (model.bn1, model.bn2) for p in layer.parameters()]
    weights = [*model.conv1.parameters(), *model.conv2.parameters(), *model.head.parameters()]
    groups = [{"params": norms, "weight_decay": rate}, {"params": weights}]
    return Case(model, None, {"optimizer": torch.optim.AdamW(groups)})


def in_16_bits(model, dtype=torch.bfloat16):
    return copy.deepcopy(model).to(dtype)


def trained(master, rate=1e-4, dtype=torch.bfloat16):
    """A stack after steps of an optimizer on its own 16-bit parameters, or on float32 copies."""
    model = Stack().to(dtype)
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    parameters = masters if master else list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    for step in range(60):
        model.zero_grad()
        model(tokens(dtype=dtype)[step % 3]).float().square().mean().backward()
        for parameter, own in zip(model.parameters(), masters, strict=True):
            own.grad = parameter.grad.float()
        optimizer.step()
        for parameter, own in zip(model.parameters(), masters if master else (), strict=False):
            parameter.data.copy_(own)
    return Case(model.eval(), tokens(dtype=dtype), {"optimizer": optimizer})


def spiked(place=7, value=5e3):
    """Tokens of which one has one very large channel."""
    data = tokens()
    data[1][2, 3, place] = value
    return data


def with_source(source):
    """A conversion by class: the activation of the layer is lost."""
    model = edited(lambda _: None, source)
    model.bn1 = nn.BatchNorm2d(8)
    model.load_state_dict(source.state_dict())
    return Case(model.eval(), batches(), {"source": source})


FUSED = settled(convolutional(bn1=anynorm.BatchNorm2d(8, activation="tanh"), relu1=nn.Identity()))


def grouped(norm):
    return Case(dense(extra=norm).eval(), batches())


def on(model, **options):
    return Case(model, batches(), options)


# The check, the fault, its layer and severity, and the same without the fault.
PLANTED = [
    (1, on(edited(shifted)), "bn2", "error", on(HEALTHY)),
    (2, on(edited(narrow)), "bn2", "warning", on(HEALTHY)),
    (3, on(edited(far)), "bn2", "error", on(HEALTHY)),
    (4, Case(edited(fresh)), "bn1", "error", Case(HEALTHY)),
    (4, on(edited(fresh)), "bn1", "error", on(HEALTHY)),
    (5, Case(DENSE, batches(size=4)), "bn", "warning", on(DENSE)),
    (6, Case(DENSE, loader(33)), "bn", "error", Case(DENSE, loader(33, drop_last=True))),
    (6, Case(DENSE, list(loader(33))), "bn", "error", Case(DENSE, list(loader(34)))),
    (6, Case(HEALTHY, loader(33)), "bn2", "warning", Case(HEALTHY, loader(32))),
    (7, Case(edited(hasty)), "bn1", "warning", Case(HEALTHY)),
    (8, Case(edited(frozen)), "bn2", "warning", Case(edited(training))),
    (8, Case(edited(lambda m: frozen(m) or m.eval())), "bn2", "info", Case(HEALTHY)),
    (9, Case(edited(broken)), "bn1", "error", Case(HEALTHY)),
    (9, on(edited(negative)), "bn2", "error", on(HEALTHY)),
    (9, on(edited(not_finite)), "conv2", "error", on(HEALTHY)),
    (9, Case(HEALTHY, batches(scale=torch.inf)), "bn1", "error", on(HEALTHY)),
    (10, Case(edited(exploded)), "bn1", "warning", Case(HEALTHY)),
    (10, Case(edited(vanished)), "bn1", "warning", Case(HEALTHY)),
    (11, on(Twice(1, 3)), "bn", "warning", on(Twice(1, 0))),
    (11, on(Twice(3, 0)), "bn", "warning", on(Twice(1, 0))),
    (12, on(Checkpointed(True)), "net.bn1", "warning", on(Checkpointed(False))),
    (12, Case(HEALTHY, None, {"steps": 60}), "bn1", "warning", Case(HEALTHY, None, {"steps": 120})),
    (13, on(HEALTHY, averaged=edited(reweighted)), "bn1", "error", on(HEALTHY, averaged=HEALTHY)),
    (
        15,
        Case(DENSE, batches(size=4), {"accumulation": 4}),
        "bn",
        "warning",
        on(DENSE, accumulation=4),
    ),
    (16, on(settled(convolutional(conv1=nn.Conv2d(3, 8, 3)))), "conv1", "info", on(HEALTHY)),
    (17, on(settled(dense(drop=nn.Dropout(0.5)))), "bn", "warning", on(DENSE)),
    (18, decaying(HEALTHY, 0.1), "bn1", "info", decaying(HEALTHY, 0.0)),
    (19, Case(edited(dead)), "bn1", "info", Case(HEALTHY)),
    (19, on(edited(constant)), "bn1", "info", on(HEALTHY)),
    (20, Case(edited(zero)), "bn2", "warning", Case(HEALTHY)),
    (
        21,
        on(convolutional(bn2=nn.BatchNorm2d(8, track_running_stats=False)).eval()),
        "bn2",
        "error",
        on(HEALTHY),
    ),
    (22, grouped(nn.GroupNorm(16, 16)), "extra", "error", grouped(nn.GroupNorm(1, 16))),
    (22, grouped(nn.GroupNorm(2, 16)), "extra", "warning", grouped(nn.LayerNorm(16))),
    (22, grouped(anynorm.create("group", 16, groups=8)), "extra", "warning", on(HEALTHY)),
    (23, on(HEALTHY, target=batches(shift=2.0)), "bn1", "error", on(HEALTHY, target=batches())),
    (24, with_source(FUSED), "bn1", "error", on(HEALTHY, source=copy.deepcopy(HEALTHY))),
    (25, Case(edited(training)), "", "info", Case(HEALTHY)),
    (26, Case(in_16_bits(edited(training))), "bn1", "warning", Case(edited(training))),
    (26, Case(in_16_bits(HEALTHY)), "bn1", "info", Case(HEALTHY)),
    (27, trained(False), "norms.0", "warning", trained(True, rate=1e-3)),
    (27, trained(False), "norms.0", "warning", trained(False, rate=3e-2)),
    (
        27,
        Case(in_16_bits(Stack()), tokens(dtype=torch.bfloat16)),
        "norms.0",
        "info",
        Case(Stack(), tokens()),
    ),
    (
        28,
        Case(Stack().half(), tokens(3e3, torch.float16)),
        "norms.0",
        "warning",
        Case(Stack().half(), tokens(1e2, torch.float16)),
    ),
    (
        28,
        Case(Stack(narrow=True).half(), tokens(2e2, torch.float16)),
        "norms.0",
        "warning",
        Case(Stack().half(), tokens(2e2, torch.float16)),
    ),
    (28, Case(Stack(), tokens(3e4)), "norms.0", "info", Case(Stack(), tokens())),
    (29, Case(Stack(), spiked()), "norms.0", "info", Case(Stack(), spiked(value=50.0))),
    (
        30,
        Case(Stack(gains=[1, 1, 10, 100, 1000, 1]), tokens()),
        "norms.5",
        "info",
        Case(Stack(), tokens(0.01)),
    ),
    (31, Case(Stack(eps=1e-2), tokens(0.01)), "norms.0", "warning", Case(Stack(), tokens(0.01))),
    (
        31,
        Case(Stack(make=nn.LayerNorm, eps=1.0), tokens(0.1)),
        "norms.0",
        "warning",
        Case(Stack(make=nn.LayerNorm), tokens(0.1)),
    ),
]


@pytest.mark.parametrize(
    ("number", "faulty", "layer", "severity", "healthy"),
    [pytest.param(*row, id=f"{row[0]}-{row[2]}-{index}") for index, row in enumerate(PLANTED)],
)
def test_a_planted_fault_is_found_where_it_is(number, faulty, layer, severity, healthy):
    first = faulty.findings(number)[0]
    assert (first.check, first.layer, first.severity) == (number, layer, severity)
    assert first.numbers
    assert first.fix
    assert healthy.findings(number) == ()


def test_every_check_has_a_planted_fault():
    # 14 compares processes: test_ranks.py.
    assert {row[0] for row in PLANTED} | {14} == {check.number for check in CHECKS}


def test_the_healthy_model_is_healthy():
    found = doctor(HEALTHY, batches())
    assert found.healthy
    assert found.status == 0
    assert found.findings == ()
