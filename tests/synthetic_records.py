"""Records as a study would write them, without training: every probe, diverged runs included."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

# norm: accuracy, largest learning rate, smallest init scale, loss range, cost, bytes
BEHAVIOUR: dict[str, tuple[float, float, float, float, float, float]] = {
    "none": (0.90, 0.1, 0.6, 2.0, 1.0, 1.0),
    "batch": (0.975, 3.0, 0.1, 0.1, 1.6, 1.9),
    "layer": (0.955, 0.3, 0.3, 1.5, 1.5, 1.9),
    "group": (0.965, 0.5, 0.2, 0.9, 1.7, 1.9),
    "instance": (0.85, 0.5, 0.2, 1.1, 1.7, 1.9),
    "rms": (0.95, 0.3, 0.3, 1.6, 1.3, 1.7),
    "l1-batch": (0.972, 3.0, 0.1, 0.09, 2.2, 2.8),
    "weight": (0.93, 0.2, 0.3, 1.4, 1.2, 1.1),
}
LAYERS = ["hidden.0", "hidden.3", "hidden.6", "head"]
STEPS = 300
SIZES = (2, 4, 8, 16, 32, 120)


def cell(**changes: Any) -> dict[str, Any]:
    """Return a cell as a plain dict."""
    base = {"subject": "mlp-relu", "data": "digits", "norm": "batch", "norm_options": []}
    base |= {"lr": 0.1, "init": 1.0, "batch": 60, "placement": "before", "noise": False}
    base |= {"affine": True}
    base |= {"optimizer": "sgd", "steps": STEPS, "seed": 0, "probes": False}
    return {**base, **changes}


def record(**changes: Any) -> dict[str, Any]:
    """Return the record of one run; `final`, `status` and `task` replace what it would say."""
    special = {name: changes.pop(name) for name in ("final", "status", "task") if name in changes}
    made = cell(**changes)
    rng = random.Random(repr(sorted(made.items(), key=str)))
    accuracy, diverged_at = _outcome(made, rng)
    if special.get("status") == "diverged":
        diverged_at = diverged_at or 40
    if special.get("status") == "ok":
        diverged_at = None
    task = special.get("task", "classification")
    return {
        "schema": 1,
        "key": f"{rng.getrandbits(96):024x}",
        "cell": made,
        "task": task,
        "chance": None if task == "regression" else 0.1,
        "status": "ok" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "curve": _curve(accuracy, diverged_at, rng),
        "evaluations": _evaluations(accuracy, diverged_at, task),
        "final": _final(made, accuracy, diverged_at, task, rng) | special.get("final", {}),
        "probes": _probes(made, diverged_at, rng) if made["probes"] else None,
        "cost": _cost(made, rng),
        "environment": {"anynorm": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "threads": 1},
    }


def star(
    norms: Iterable[str] = tuple(BEHAVIOUR), seeds: Sequence[int] = (0, 1, 2), **fixed: Any
) -> list[dict[str, Any]]:
    """Return a whole study: the base with probes, and every sweep around it."""
    cells = {}
    for norm in norms:
        for seed in seeds:
            for change in _changes(norm):
                made = {"norm": norm, "seed": seed, **fixed, **change}
                cells[repr(sorted(made.items(), key=str))] = made
    return [record(**made) for made in cells.values()]


def _changes(norm: str) -> Iterator[dict[str, Any]]:
    yield {"probes": True}
    yield from ({"lr": lr} for lr in (0.01, 0.03, 0.3, 3.0, 10.0))
    yield from ({"init": init} for init in (0.01, 0.03, 0.1, 0.3, 3.0, 10.0))
    for batch in SIZES:
        yield {"batch": batch, "lr": 0.1 * batch / 60, "steps": STEPS * 60 // batch}
        yield {"batch": batch, "lr": 0.1 * batch / 60}
    if norm != "none":
        yield {"placement": "after"}
    if norm == "batch":
        yield {"affine": False}
    if norm in ("none", "batch"):
        yield from ({"lr": 1.0, "noise": noise, "probes": True} for noise in (False, True))
    else:
        yield {"lr": 1.0}


def control_arms(lr: float = 1.0, seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Return the four arms of the noisy control, probed."""
    return [
        record(norm=norm, noise=noise, lr=lr, seed=seed, probes=True)
        for norm in ("none", "batch")
        for noise in (False, True)
        for seed in seeds
    ]


def batch_sweep(
    budget: str, norms: Sequence[str] = ("batch", "group"), seeds: Sequence[int] = (0, 1, 2)
) -> list[dict[str, Any]]:
    """Return batch sizes at equal ``"epochs"`` or ``"steps"``, the base's 60 among them."""
    return [
        record(
            norm=norm,
            batch=batch,
            lr=0.1 * batch / 60,
            steps=STEPS * 60 // batch if budget == "epochs" else STEPS,
            seed=seed,
        )
        for norm in norms
        for batch in (*SIZES, 60)
        for seed in seeds
    ]


def saturation(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Return probed runs of a sigmoid net at its own initial weights and at 100 times those."""
    return [
        record(subject="mlp-sigmoid", norm=norm, init=init, seed=seed, probes=True, status="ok")
        for norm in ("none", "batch")
        for init in (1.0, 100.0)
        for seed in seeds
    ]


def _outcome(made: dict[str, Any], rng: random.Random) -> tuple[float, int | None]:
    top, most, least, *_ = BEHAVIOUR.get(made["norm"], BEHAVIOUR["layer"])
    scaled = made["lr"] * 60 / made["batch"]
    if scaled > 3.5 * most or made["init"] > 4 * most / 0.1:
        return 0.0, rng.choice([3, 60, 130])
    accuracy = top - 0.05 * abs(math.log10(scaled / min(most, 0.3)))
    accuracy -= 0.3 * max(0.0, math.log10(least / made["init"]))
    if made["norm"].endswith("batch"):
        accuracy -= 0.45 * max(0.0, math.log2(8 / made["batch"]) / 2) ** 2
    if made["steps"] * made["batch"] < STEPS * 60:
        accuracy -= 0.01 * math.log2(STEPS * 60 / (made["steps"] * made["batch"]))
    accuracy -= 0.01 * made["noise"] + 0.02 * (not made["affine"])
    accuracy -= 0.005 * (made["placement"] == "after")
    return max(0.1, min(1.0, accuracy + rng.uniform(-0.006, 0.006))), None


def _curve(accuracy: float, diverged_at: int | None, rng: random.Random) -> dict[str, list[Any]]:
    steps = [step for step in range(0, STEPS, 3) if diverged_at is None or step <= diverged_at]
    if diverged_at is not None:
        return {"step": steps, "train_loss": [*[2.3 * 1.1**s for s in range(len(steps) - 1)], None]}
    rate = 0.03 * accuracy**6
    return {
        "step": steps,
        "train_loss": [2.3 * math.exp(-rate * s) * rng.uniform(0.8, 1.2) + 0.002 for s in steps],
    }


def _evaluations(accuracy: float, diverged_at: int | None, task: str) -> dict[str, list[Any]]:
    steps = [] if diverged_at is not None else [0, 60, 120, 180, 240, STEPS]
    reached = [step / STEPS for step in steps]
    seen = [0.1 + (min(1.0, accuracy + 0.03) - 0.1) * share**0.5 for share in reached]
    held = [0.1 + (accuracy - 0.1) * share**0.5 for share in reached]
    blank = [None] * len(steps) if task == "regression" else None
    return {
        "step": steps,
        "train_loss": [2.3 * math.exp(-4 * accuracy * share) for share in reached],
        "train_accuracy": blank or seen,
        "test_loss": [2.3 * math.exp(-3.5 * accuracy * share) for share in reached],
        "test_accuracy": blank or held,
    }


def _final(
    made: dict[str, Any], accuracy: float, diverged_at: int | None, task: str, rng: random.Random
) -> dict[str, float | None]:
    names = ("test_accuracy", "test_accuracy_train_mode", "test_accuracy_recalibrated")
    if diverged_at is not None:
        return dict.fromkeys(("train_loss", "train_accuracy", "test_loss", *names))
    gap = 0.2 if made["norm"] == "batch" and made["subject"] == "rnn" else 0.0
    accuracies = [accuracy - gap, accuracy, accuracy - 0.002]
    losses = {"train_loss": 2.3 * math.exp(-4 * accuracy) * rng.uniform(0.9, 1.1)}
    losses["test_loss"] = 2.3 * math.exp(-3.5 * accuracy)
    if task == "regression":
        return losses | dict.fromkeys(("train_accuracy", *names))
    return {
        **losses,
        "train_accuracy": min(1.0, accuracy + 0.03),
        **dict(zip(names, accuracies, strict=True)),
    }


def _cost(made: dict[str, Any], rng: random.Random) -> dict[str, float]:
    *_, time, memory = BEHAVIOUR.get(made["norm"], BEHAVIOUR["layer"])
    per_step = 0.0006 * time * rng.uniform(0.9, 1.2)
    return {
        "seconds_per_step": per_step,
        "bytes_for_backward": int(400_000 * memory),
        "train_seconds": per_step * made["steps"],
        "probe_seconds": 0.4 * per_step * made["steps"] if made["probes"] else 0.0,
    }


def _probes(made: dict[str, Any], diverged_at: int | None, rng: random.Random) -> dict[str, Any]:
    last = STEPS if diverged_at is None else diverged_at + 1
    steps = [s for s in [0, 1, 2, 5, *range(10, STEPS, 10)] if s < last]
    size = BEHAVIOUR.get(made["norm"], BEHAVIOUR["layer"])[3] * (1 + made["noise"])
    return {
        "landscape": _landscape(steps, size, made["lr"], rng),
        "shift": _shift(steps, size, rng),
        "units": _units(steps, size, made, rng),
        "flow": _flow(steps, size, rng),
        **(_after_training(rng) if _is_measured(made, diverged_at) else {}),
    }


def _is_measured(made: dict[str, Any], diverged_at: int | None) -> bool:
    return made["norm"] == "batch" and not made["noise"] and diverged_at is None


def _after_training(rng: random.Random) -> dict[str, Any]:
    """Return γ and β as a probe finds them; |γ| orders channels within layers, not across."""
    gamma = [[rng.uniform(0.5, 1.5) / (1 + layer) for _ in range(20)] for layer in range(3)]
    beta = [[rng.uniform(-0.5, 0.5) for _ in row] for row in gamma]
    rise = [
        [0.01 * (1 + layer) ** 2 * g + rng.uniform(0, 0.01) for g in row]
        for layer, row in enumerate(gamma)
    ]
    return {
        "affine": {
            "layers": LAYERS[:-1],
            "gamma": gamma,
            "beta": beta,
            "mean": [[b + 1e-7 for b in row] for row in beta],
            "deviation": [[g * (1 - 1e-5) for g in row] for row in gamma],
        },
        "importance": {
            "loss": 0.02,
            "layers": LAYERS[:-1],
            "channels": [20, 20, 20],
            "gamma": gamma,
            "rise": rise,
            "within": [rng.uniform(0.3, 0.6) for _ in gamma],
            "across": rng.uniform(-0.5, -0.3),
            "shares": [0.1, 0.3, 0.5],
            "by_layer": _constant_channels(0.5, rng),
            "overall": _constant_channels(2.0, rng),
        },
    }


def _constant_channels(smallest: float, rng: random.Random) -> dict[str, list[Any]]:
    losses = (0.1, 0.6, 1.5)
    return {
        "smallest": [smallest * loss * rng.uniform(0.9, 1.1) for loss in losses],
        "random": [[loss * rng.uniform(0.8, 1.2) for _ in range(20)] for loss in losses],
        "largest": [2 * loss * rng.uniform(0.9, 1.1) for loss in losses],
    }


def _noisy(steps: Sequence[int], size: float, rng: random.Random) -> list[float]:
    return [size * math.exp(-step / 400) * rng.uniform(0.8, 1.25) for step in steps]


def _layered(steps: Sequence[int], size: float, rng: random.Random) -> list[list[float]]:
    return [_noisy([step] * len(LAYERS), size, rng) for step in steps]


def _landscape(
    steps: Sequence[int], size: float, lr: float, rng: random.Random
) -> dict[str, list[Any]]:
    loss = _noisy(steps, 2.3, rng)
    span = _noisy(steps, size, rng)
    beta = _noisy(steps, 10 * size**0.3, rng)
    return {
        "step": list(steps),
        "loss": loss,
        "loss_low": [value * 0.9 for value in loss],
        "loss_high": [value * 0.9 + s for value, s in zip(loss, span, strict=True)],
        "loss_range": span,
        "log_ratio": [math.log1p(s) for s in span],
        "distance_low": _noisy(steps, size, rng),
        "distance_high": _noisy(steps, 6 * size, rng),
        "relative_distance": _noisy(steps, size, rng),
        "cosine": _noisy(steps, 0.8, rng),
        "beta": beta,
        "eta_beta": [lr * value for value in beta],
    }


def _shift(steps: Sequence[int], size: float, rng: random.Random) -> dict[str, Any]:
    cosine = [[min(1.0, c) for c in row] for row in _layered(steps, 0.7, rng)]
    return {
        "step": list(steps),
        "layers": LAYERS,
        "distance": _layered(steps, size, rng),
        "relative": _layered(steps, 0.3 * size**0.2, rng),
        "cosine": cosine,
    }


def _units(
    steps: Sequence[int], size: float, made: dict[str, Any], rng: random.Random
) -> dict[str, Any]:
    drift = 0.0 if "batch" in made["norm"] else 0.004
    middle = [0.1 * rng.uniform(-1, 1) + drift * step for step in steps]
    return {
        "step": list(steps),
        "layers": LAYERS[:-1],
        "percentiles": {
            "p15": [m - 1.0 for m in middle],
            "p50": middle,
            "p85": [m + 1.0 for m in middle],
        },
        "mean_shift": _layered(steps, 0.1 * size**0.4, rng),
        "log_std_shift": _layered(steps, 0.05 * size**0.4, rng),
        "wasserstein": _layered(steps, 0.12 * size**0.4, rng),
        "saturated": [[_saturated(made)] * 3 for _ in steps],
        "dead": [[None if _is_sigmoid(made) else min(1.0, 0.05 * size)] * 3 for _ in steps],
        "whiteness": _layered(steps, 0.3, rng),
    }


def _is_sigmoid(made: dict[str, Any]) -> bool:
    return bool(made["subject"] == "mlp-sigmoid")


def _saturated(made: dict[str, Any]) -> float | None:
    if not _is_sigmoid(made):
        return None
    return 0.55 if made["norm"] == "none" and made["init"] > 10 else 0.0


def _flow(steps: Sequence[int], size: float, rng: random.Random) -> dict[str, Any]:
    ratio = [
        [0.1 * size**depth * rng.uniform(0.8, 1.2) for depth in (0.0, 0.3, 0.6, 1.0)] for _ in steps
    ]
    return {
        "step": list(steps),
        "layers": LAYERS,
        "ratio": ratio,
        "max_over_min": [max(row) / min(row) for row in ratio],
        "log_slope": [math.log10(row[-1] / row[0]) / 3 for row in ratio],
    }


def strings(value: Any) -> Iterator[str]:
    """Yield every text in the values of nested dicts and lists, such as those of an evidence."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
