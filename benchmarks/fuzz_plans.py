"""Plan files that were changed at random: each cuts a whole model or leaves it as it was.

Half of the changed plans get a new digest, as if `Plan.write` had written them: they
show what `Plan.apply` refuses by itself.  What it cannot see is a channel that is cut in one layer
and not in the next.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Plan
from anynorm.surgery.prune.plan import digest
from benchmarks.fuzz_layers import FoundError, Outcome

_ODD: tuple[Any, ...] = (None, -1, 0, 1, 7, 10**9, 1.5, "", "0.weight", [], {}, True, [[1]], "∞")


@functools.cache
def _prepared() -> tuple[nn.Module, str]:
    """A model and the text of a plan that cuts it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)
    ).eval()
    model[1].weight.data = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    result = anynorm.prune(model, torch.randn(2, 3, 9, 9), ratio=0.2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        result.plan.write(file)
        return model, file.read_text("utf-8")


def run(seed: int) -> Outcome:
    """Change the plan at one to three places, or its text at one, and apply it."""
    chance = random.Random(seed)
    model, text = _prepared()
    changed = _changed_text(text, chance) if chance.random() < 0.2 else _changed(text, chance)
    signed = chance.random() < 0.5
    if signed:
        changed = _signed(changed)
    target = copy.deepcopy(model)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_text(changed, "utf-8")
        try:
            Plan.read(file).apply(target, inplace=True)
        except AnynormError:
            after = target.state_dict()
            if after.keys() != before.keys() or any(
                not torch.equal(after[name], value) for name, value in before.items()
            ):
                raise FoundError(f"refused, but the model changed: {changed}") from None
            return Outcome("refused")
        except Exception as error:
            raise FoundError(f"{type(error).__name__}: {error}: {changed}") from error
    try:
        target(torch.randn(2, 3, 9, 9))
    except RuntimeError as error:
        if not signed:
            raise FoundError(f"applied, and the model cannot run: {error}: {changed}") from error
        return Outcome("applied as signed, and the layers do not fit")
    return Outcome("applied as signed" if signed else "applied, being the same plan")


def _signed(text: str) -> str:
    """The same text with a digest that fits it, where it can be read as a plan."""
    try:
        plain = json.loads(text)
        del plain["sha256"]
        return json.dumps({**plain, "sha256": digest(plain)})
    except (ValueError, KeyError, TypeError):
        return text


def _changed(text: str, chance: random.Random) -> str:
    plan = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(_places(plan))
        if chance.random() < 0.3:
            del holder[key]
            break  # other places may be gone with it
        holder[key] = copy.deepcopy(chance.choice(_ODD))
    return json.dumps(plan)


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        keys: Any = [*value]
    elif isinstance(value, list):
        keys = range(len(value))
    else:
        return []
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def _changed_text(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return text[:at] + chance.choice(("", "[", "}", "9", "null", '"')) + text[at + 1 :]
