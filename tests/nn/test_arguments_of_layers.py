"""What layers are built with: signatures that tools can read, and values that make a layer."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import anynorm
from anynorm.errors import AnynormError

TWINS: dict[str, tuple[int, ...]] = {
    **{f"BatchNorm{rank}d": (4,) for rank in (1, 2, 3)},
    **{f"InstanceNorm{rank}d": (4,) for rank in (1, 2, 3)},
    **{f"LazyBatchNorm{rank}d": () for rank in (1, 2, 3)},
    "SyncBatchNorm": (4,),
    "LayerNorm": (4,),
    "RMSNorm": (4,),
    "GroupNorm": (2, 4),
}


@pytest.mark.parametrize("name", TWINS)
def test_signatures_begin_with_torchs(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(of, name)) for of in (anynorm, torch.nn))
    shared = [parameter for parameter in ours.parameters if parameter in theirs.parameters]
    assert shared == list(theirs.parameters)
    assert "activation" in ours.parameters
    assert all(ours.parameters[key].default == theirs.parameters[key].default for key in shared)
    kinds = {parameter.kind for parameter in ours.parameters.values()}
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("name", [name for name in TWINS if not name.startswith("Lazy")])
def test_skip_init(name: str) -> None:
    layer = torch.nn.utils.skip_init(getattr(anynorm, name), *TWINS[name])
    assert type(layer) is getattr(anynorm, name)


def test_a_subclass_has_its_own_signature() -> None:
    class Wide(anynorm.BatchNorm2d):
        def __init__(self, width: int, *, factor: int = 2) -> None:
            super().__init__(width * factor)

    class Same(anynorm.LayerNorm):
        pass

    class Wider(Wide):
        pass

    class Synced(anynorm.SyncBatchNorm):
        pass

    assert list(inspect.signature(Wide).parameters) == ["width", "factor"]
    assert Wide(3).num_features == 6
    assert inspect.signature(Wider) == inspect.signature(Wide)
    assert inspect.signature(Synced) == inspect.signature(anynorm.SyncBatchNorm)
    assert inspect.signature(Same) == inspect.signature(anynorm.LayerNorm)


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("BatchNorm2d", (0,), {}, "num_features=0; num_features must be an integer, 1 or more"),
    ("BatchNorm2d", (-3,), {}, "num_features=-3"),
    ("BatchNorm2d", ("64",), {}, "num_features='64'"),
    ("BatchNorm2d", (2.5,), {}, "num_features=2.5"),
    ("BatchNorm2d", (4,), {"eps": -1}, "eps=-1; eps must be positive or 0"),
    ("BatchNorm2d", (4,), {"eps": "1e-5"}, "eps='1e-5'"),
    ("BatchNorm2d", (4,), {"eps": float("nan")}, "eps=nan"),
    ("BatchNorm2d", (4, 1e-5, 2.0), {}, "momentum=2.0; momentum must be the weight of the newest"),
    ("BatchNorm2d", (4,), {"momentum": -0.1}, "momentum=-0.1"),
    ("SyncBatchNorm", (4,), {"momentum": 1.5}, "momentum=1.5"),
    ("LazyBatchNorm2d", (), {"eps": -1.0}, "eps=-1.0"),
    ("InstanceNorm2d", (0,), {}, "num_features=0"),
    ("LayerNorm", (4,), {"eps": -1e-5}, "eps=-1e-05"),
    ("RMSNorm", (4,), {"eps": float("inf")}, "eps=inf"),
    ("GroupNorm", ("2", 4), {}, "num_groups='2'"),
    ("GroupNorm", (2, 0), {}, "num_channels=0"),
]


@pytest.mark.parametrize(("name", "args", "options", "words"), BAD)
def test_values_that_make_no_layer(
    name: str, args: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnynormError, match=words) as raised:
        getattr(anynorm, name)(*args, **options)
    assert str(raised.value).startswith(f"{name}: ")


def test_values_that_make_one() -> None:
    assert anynorm.BatchNorm2d(np.int64(3), eps=0, momentum=None).num_features == 3  # type: ignore[arg-type]
    assert anynorm.BatchNorm2d(3, momentum=np.float32(0.5)).momentum == 0.5  # type: ignore[arg-type]
    assert anynorm.RMSNorm(4, eps=None).eps is None
    with pytest.raises(TypeError):
        anynorm.BatchNorm2d(3, unknown=1)
