"""How often the doctor is wrong about healthy statistics, and how often it finds wrong ones.

    python -m benchmarks.doctor_power              # about 15 minutes on one core
    python -m benchmarks.doctor_power --studies 50 --out /tmp/doctor_power.json

Activations with known distributions go through the same code as those of real models. Running
statistics are those of 60 batches of training with momentum 0.1, as large as the batches that the
doctor gets. They are examined as they are, with all means of one layer moved by 0.5 σ, and with
all its variances doubled. "Before" is the rule of earlier versions, kept here for comparison.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import anynorm
from anynorm.doctor.checks.statistics import described
from anynorm.doctor.checks.training import LEVEL, p_of_no_gap
from anynorm.doctor.drift import FACTOR, MEAN, SHIFT, VARIANCE, drifts
from anynorm.doctor.record import Record
from anynorm.doctor.significance import discoveries, p_values
from anynorm.surgery.normalizers import normalizers
from benchmarks import RESULTS, ROOT
from benchmarks.page import fill, line
from benchmarks.result_files import about, read, write

__all__ = ["FILE", "PAGE", "PIECES", "SHAPES", "Setting", "main", "settings", "simulate", "tables"]

FILE = RESULTS / "doctor_power.json"
PAGE = ROOT / "docs" / "doctor.md"
PIECES = (1, 2, 3, 4, 8, 64)
TRAINED, MOMENTUM = 60, 0.1
VALUES = 1e8  # that are drawn for one setting, about
FEWEST = 25  # studies of a setting


@dataclass(frozen=True)
class Setting:
    """A kind of model and data."""

    shape: str
    positions: int
    batches: int
    batch: int
    channels: int
    layers: int


def _gaussian(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size)


def _lognormal(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size).exp()


def _t3(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size) / (torch.randn(3, *size).square().mean(dim=0)).sqrt()


def _relu(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size).relu()


def _sparse(size: tuple[int, ...]) -> Tensor:
    return torch.randn(size).abs() * (torch.rand(size) < 0.05)


SHAPES: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "Gaussian": _gaussian,
    "log-normal": _lognormal,
    "t with 3 degrees of freedom": _t3,
    "ReLU": _relu,
    "1 in 20 is not 0": _sparse,
}


def draw(setting: Setting, samples: int) -> Tensor:
    """Draw activations (samples, channels, positions); with several, half belongs to the sample."""
    shape, channels = SHAPES[setting.shape], setting.channels
    size = (samples, channels, setting.positions)
    if setting.positions == 1:
        return shape(size)
    alone = (samples, channels, 1)
    if shape is _relu:
        return (math.sqrt(0.5) * (_gaussian(alone) + _gaussian(size))).relu()
    if shape is _sparse:
        both = (math.sqrt(0.5) * (_gaussian(alone) + _gaussian(size))).abs()
        return both * (torch.rand(alone) < 0.05)
    return math.sqrt(0.5) * (shape(alone) + shape(size))


@cache
def _deviation(shape: str, positions: int) -> float:
    torch.manual_seed(0)
    return float(draw(Setting(shape, positions, 1, 1, 16, 1), 200_000 // positions).std())


@dataclass
class _Layer:
    """A batch norm, what is seen of it, and the batches themselves for the rule before."""

    norm: nn.BatchNorm1d
    record: Record
    batches: list[Tensor]


def _layer(setting: Setting, order: int, pieces: int = 0) -> _Layer:
    norm = nn.BatchNorm1d(setting.channels, momentum=MOMENTUM).double()
    trained = draw(setting, TRAINED * setting.batch).double().unflatten(0, (TRAINED, -1))
    weights = (1 - MOMENTUM) ** torch.arange(TRAINED, dtype=torch.float64)
    weights = (weights / weights.sum())[:, None]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.copy_((weights * trained.mean(dim=(1, 3))).sum(dim=0))
    variances = trained.transpose(1, 2).flatten(2).var(dim=2)
    norm.running_var.copy_((weights * variances).sum(dim=0))
    norm.num_batches_tracked.fill_(1000)
    samples = draw(setting, setting.batches * setting.batch)
    batches = list(samples.tensor_split(pieces or setting.batches))
    return _Layer(norm, _seen(norm, order, batches), batches)


def _seen(norm: nn.Module, order: int, batches: Sequence[Tensor]) -> Record:
    [normalizer] = normalizers(norm)
    record = Record(normalizer)
    for x in batches:
        record.see(x, 0, order, samples=len(x))
    return record


def _now(layers: Sequence[_Layer]) -> list[tuple[list[str], list[str]]]:
    """The severities of what is said about the mean and the variance of each layer."""
    found = []
    for drift in drifts([layer.record for layer in layers]):
        by_kind: tuple[list[str], list[str]] = ([], [])
        for one in described(drift):
            by_kind["variance" in one.message].append(one.severity)
        found.append(by_kind)
    return found


def _before(layers: Sequence[_Layer]) -> list[tuple[list[str], list[str]]]:
    """The rule of earlier versions.

    The noise is that of batches, or of samples where that is larger in all channels, and one
    channel in which it is not takes the degrees of freedom of all.
    """
    measured = [_effects(layer) for layer in layers]
    found = []
    for kind, threshold in ((0, MEAN), (1, VARIANCE)):
        p = torch.cat([one[kind][1] for one in measured])
        off = discoveries(p, 0.01).split([len(one[kind][1]) for one in measured])
        found.append(
            [
                _severities(one[kind][0], which, kind, threshold)
                for one, which in zip(measured, off, strict=True)
            ]
        )
    return list(zip(*found, strict=True))


def _severities(effect: Tensor, significant: Tensor, kind: int, threshold: float) -> list[str]:
    off = significant & (effect.abs() > threshold)
    if not bool(off.any()):
        return []
    if float(effect[off].abs().max()) >= 5 * threshold:
        return ["error"]
    moved = torch.where(off, (effect / 2).expm1() if kind else effect, 0.0)
    return ["warning" if float(moved.square().mean().sqrt()) > 0.05 else "info"]


def _effects(layer: _Layer) -> list[tuple[Tensor, Tensor]]:
    """Effect and p of each channel, for the mean and for the variance."""
    norm, values = layer.norm, layer.record.inputs.values
    assert norm.running_mean is not None
    assert norm.running_var is not None
    batches = [x.double() for x in layer.batches]
    centres = [x.mean(dim=(0, 2)) for x in batches]
    spreads = [(x - m[:, None]).square().mean(dim=2) for x, m in zip(batches, centres, strict=True)]
    full = [i for i, x in enumerate(batches) if len(x) == len(batches[0])]
    variances = [batches[i].transpose(0, 1).flatten(1).var(dim=1) for i in full]
    sides = (
        (torch.cat([x.mean(dim=2) for x in batches]), torch.stack([centres[i] for i in full])),
        (torch.cat(spreads), torch.stack(variances)),
    )
    variance = values.variance + norm.eps
    effects = (
        (norm.running_mean - values.mean) / variance.sqrt(),
        ((norm.running_var + norm.eps) / variance).log(),
    )
    share = MOMENTUM / (2 - MOMENTUM) + 1 / len(batches)
    found = []
    for effect, (single, batched), scale in zip(
        effects, sides, (variance, variance.square()), strict=True
    ):
        noise, freedom = single.var(dim=0) / len(batches[0]), max(len(single) - 1, 1)
        if len(batched) > 1 and bool((batched.var(dim=0) > noise).any()):
            noise, freedom = torch.maximum(batched.var(dim=0), noise), len(batched) - 1
        found.append((effect, p_values(effect, share * noise / scale, freedom)))
    return found


_RULES = {"before": _before, "now": _now}


def _planted(layers: Sequence[_Layer], fault: str, sigma: float) -> Callable[[], None]:
    """Plant a fault in the layer in the middle; returns what takes it away."""
    norm = layers[len(layers) // 2].norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    if fault == "shift":
        norm.running_mean += SHIFT * sigma
    if fault == "factor":
        norm.running_var *= FACTOR

    def restore() -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    return restore


def _study(setting: Setting, pieces: int = 0) -> dict[str, float]:
    layers = [_layer(setting, order, pieces) for order in range(setting.layers)]
    return _examined(layers, _deviation(setting.shape, setting.positions))


def _examined(layers: Sequence[_Layer], sigma: float) -> dict[str, float]:
    middle = len(layers) // 2
    found: dict[str, float] = {}
    for rule, examine in _RULES.items():
        every = [one for kinds in examine(layers) for kind in kinds for one in kind]
        found[f"{rule}: warning"] = float(bool({"warning", "error"} & set(every)))
        found[f"{rule}: error"] = float("error" in every)
        for kind, fault in enumerate(("shift", "factor")):
            restore = _planted(layers, fault, sigma)
            said = examine(layers)[middle][kind]
            found[f"{rule}: {fault}"] = float(bool({"warning", "error"} & set(said)))
            if rule == "now":
                found[f"silent: {fault}"] = float(not said and not _unsure(layers))
            restore()
    drift = drifts([layer.record for layer in layers])[middle]
    found["undecided: shift"] = float(drift.shift > SHIFT)
    found["undecided: factor"] = float(drift.factor > FACTOR)
    return found


def _unsure(layers: Sequence[_Layer]) -> bool:
    """Whether the layer in the middle is undecided."""
    drift = drifts([layer.record for layer in layers])[len(layers) // 2]
    return drift.shift > SHIFT or drift.factor > FACTOR


def _average(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(one[key] for one in found) / len(found) for key in found[0]}


def simulate(setting: Setting, studies: int, seed: int = 0) -> dict[str, float]:
    """Return the share of studies in which each rule says something."""
    torch.manual_seed(seed)
    return _average([_study(setting) for _ in range(studies)])


def in_pieces(studies: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """The same 64 samples cut into 1, 2, 3, 4, 8 and 64 batches: how often a shift is found."""
    setting = Setting("Gaussian", 64, 1, 64, 16, 1)
    found: dict[int, list[dict[str, float]]] = {pieces: [] for pieces in PIECES}
    torch.manual_seed(seed)
    sigma = _deviation(setting.shape, setting.positions)
    for _ in range(studies):
        [layer] = [_layer(setting, 0)]
        for pieces in PIECES:
            batches = list(torch.cat(layer.batches).tensor_split(pieces))
            cut = _Layer(layer.norm, _seen(layer.norm, 0, batches), batches)
            found[pieces].append(_examined([cut], sigma))
    return {str(pieces): _average(rows) for pieces, rows in found.items()}


_GAPS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "Gaussian": _gaussian,
    "skewed to the right": lambda size: (_lognormal(size) - math.exp(0.5)) / 2.16,
    "skewed to the left": lambda size: (math.exp(0.5) - _lognormal(size)) / 2.16,
}


def losses(shape: str, batches: int, batch: int, studies: int, seed: int = 0) -> dict[str, float]:
    """Check 3: how often a gap of losses is called real where there is none, and of 0.5 σ."""
    torch.manual_seed(seed)
    found = []
    for _ in range(studies):
        gaps = _GAPS[shape]((batches, batch))
        row: dict[str, float] = {}
        for word, gap in (("error", gaps), ("power", gaps + 0.5)):
            row[f"now: {word}"] = float(p_of_no_gap(list(gap.double())) < LEVEL)
            row[f"before: {word}"] = float(_bootstrap(gap.mean(dim=1)) > 0)
        found.append(row)
    return _average(found)


def _bootstrap(values: Tensor) -> float:
    """The lower end of the 99% interval by the bootstrap, for 5 batches and more, as it was."""
    if len(values) < 5:
        return -math.inf
    chosen = torch.randint(len(values), (4000, len(values)))
    return float(values[chosen].mean(dim=1).quantile(0.005))


class _Shared(nn.Module):
    """One batch norm for several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.norm(part) for part in x.unbind(1)])


def sharing(shape: str, calls: int, shift: float, studies: int, seed: int = 0) -> float:
    """Check 11: how often calls are said to differ, on 64 samples in 4 batches."""
    torch.manual_seed(seed)
    sigma = _deviation(shape, 1)
    found = 0
    for _ in range(studies):
        x = SHAPES[shape]((64, calls, 16))
        x[:, -1] += shift * sigma
        found += bool(anynorm.doctor(_Shared().eval(), list(x.split(16)), checks=[11]).findings)
    return found / studies


def dropping(rate: float, studies: int, seed: int = 0) -> float:
    """Check 17: how often a centred dropout in front of batch norm is found, on 64 samples."""
    found = 0
    for study in range(studies):
        torch.manual_seed(seed * studies + study)
        first, drop, second = nn.Linear(32, 64), nn.Dropout(rate), nn.Linear(64, 32)
        model = nn.Sequential(first, drop, second, nn.BatchNorm1d(32)).eval()
        batches = list(torch.randn(64, 32).split(16))
        found += bool(anynorm.doctor(model, batches, checks=[17]).findings)
    return found / studies


def settings() -> Iterator[Setting]:
    """Every setting: the cuts, with one position and with 8 by 8, and the largest models."""
    for shape in SHAPES:
        for batches, batch in ((1, 8), (2, 16), (8, 8), (2, 32), (5, 64), (50, 8)):
            yield Setting(shape, 1, batches, batch, 64, 1)
            yield Setting(shape, 64, batches, batch, 16, 1)
        yield Setting(shape, 1, 2, 32, 512, 1)
        yield Setting(shape, 1, 2, 32, 16, 50)
        yield Setting(shape, 1, 50, 256, 16, 1)


def _studies(setting: Setting, most: int) -> int:
    samples = TRAINED * setting.batch + setting.batches * setting.batch
    values = samples * setting.channels * setting.positions * setting.layers
    return max(min(most, int(VALUES / values)), min(most, FEWEST))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def power_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Error and power of checks 1 and 2, before and now."""
    head = ["values", "positions", "batches", "channels", "layers", "studies"]
    keys = {"false warnings": "warning", "false errors": "error", "0.5 σ": "shift"}
    keys |= {"factor 2": "factor"}
    head += [*keys, "cannot tell: 0.5 σ", "factor 2"]
    lines = [line(head), "|---" * len(head) + "|"]
    for row in rows:
        found, cut = row["found"], f"{row['batches']} × {row['batch']}"
        cells = [row["shape"], row["positions"], cut, row["channels"], row["layers"]]
        shares = [
            f"{_percent(found[f'before: {key}'])} → {_percent(found[f'now: {key}'])}"
            for key in keys.values()
        ]
        unsure = [_percent(found[f"undecided: {key}"]) for key in ("shift", "factor")]
        lines.append(line([*map(str, cells), str(row["studies"]), *shares, *unsure]))
    return "\n".join(lines)


def pieces_table(pieces: Mapping[str, Mapping[str, float]]) -> str:
    """How often 0.5 σ and a factor of 2 are found in the same samples, by the cut."""
    keys = [
        (f"{fault}, {rule}", f"{rule}: {key}")
        for fault, key in (("0.5 σ", "shift"), ("factor 2", "factor"), ("nothing", "warning"))
        for rule in _RULES
    ]
    lines = [line(["found, %", *(f"{n} batch{'es' * (n > 1)}" for n in PIECES)])]
    lines.append("|---" * (1 + len(PIECES)) + "|")
    for title, key in keys:
        lines.append(line([title, *(_percent(pieces[str(n)][key]) for n in PIECES)]))
    return "\n".join(lines)


def others_table(result: Mapping[str, Any]) -> str:
    """Error and power of checks 3, 11 and 17."""
    lines = [line(("check", "data", "found where nothing is, %", "found, %")), "|---|---|---|---|"]
    for row in result["losses"]:
        found = row["found"]
        data = f"{row['shape']} losses, {row['batches']} × {row['batch']}"
        shares = [
            f"{100 * found[f'before: {key}']:.1f} → {100 * found[f'now: {key}']:.1f}"
            for key in ("error", "power")
        ]
        lines.append(line(("3", data, *shares)))
    for row in result["sharing"]:
        data = f"{row['shape']}, {row['calls']} calls, 4 × 16"
        lines.append(line(("11", data, _percent(row["error"]), _percent(row["power"]))))
    for row in result["dropping"]:
        shares = (
            ("", _percent(row["found"])) if row["rate"] >= 0.1 else (_percent(row["found"]), "")
        )
        lines.append(line(("17", f"dropout {row['rate']:g}, 4 × 16", *shares)))
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """The tables by the name of their marker."""
    result = read(FILE)
    return {
        "error and power": power_table(result["rows"]),
        "pieces": pieces_table(result["pieces"]),
        "error and power of the others": others_table(result),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate every setting, write the shares, and put the tables onto the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=150, help="of each setting, at most (150)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (0)")
    parser.add_argument("--out", type=Path, default=FILE, help=f"the result ({FILE})")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    most, seed, rows = options.studies, options.seed, []
    for setting in settings():
        studies = _studies(setting, most)
        rows.append({**asdict(setting), "studies": studies})
        rows[-1]["found"] = simulate(setting, studies, seed)
        print(power_table(rows[-1:]).splitlines()[-1], flush=True)
    result = {"about": about("default", {}), "rows": rows, "pieces": in_pieces(most // 2, seed)}
    result["losses"] = [
        {"shape": shape, "batches": batches, "batch": batch, "studies": 10 * most}
        | {"found": losses(shape, batches, batch, 10 * most, seed)}
        for shape in _GAPS
        for batches, batch in ((1, 64), (3, 16), (5, 16), (20, 16), (20, 1))
    ]
    result["sharing"] = [
        {"shape": shape, "calls": calls, "studies": most // 2}
        | {"error": sharing(shape, calls, 0.0, most // 2, seed)}
        | {"power": sharing(shape, calls, 0.5, most // 2, seed)}
        for shape in SHAPES
        for calls in (2, 8)
    ]
    result["dropping"] = [
        {"rate": rate, "studies": most // 2, "found": dropping(rate, most // 2, seed)}
        for rate in (1e-3, 0.02, 0.1, 0.5)
    ]
    write(options.out, result)
    if options.out == FILE:
        for name, words in tables().items():
            fill(PAGE, name, words)


if __name__ == "__main__":
    main()
