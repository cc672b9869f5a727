"""One bit for each value, in the memory order of ``empty_like``."""

import pytest
import torch

from anynorm.ops import sign_bits

LAYOUTS = {
    "contiguous": lambda: torch.randn(3, 4, 5),
    "one value": lambda: torch.randn(()),
    "permuted": lambda: torch.randn(5, 3, 4).permute(1, 2, 0),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "strided": lambda: torch.randn(3, 4, 10)[..., ::2],
    "expanded": lambda: torch.randn(3, 1, 5).expand(3, 4, 5),
    "with axes of one": lambda: torch.randn(1, 7, 1, 3).permute(3, 2, 1, 0),
    "empty": lambda: torch.randn(0, 3),
}


@pytest.fixture(params=LAYOUTS)
def x(request):
    return LAYOUTS[request.param]()


def test_there_and_back(x):
    packed = sign_bits.pack(x > 0, x)
    assert packed.dtype == torch.uint8
    assert packed.shape == sign_bits.fake(x, kept=True).shape == ((x.numel() + 7) // 8 + 8,)
    assert torch.equal(sign_bits.unpack(packed, x), x > 0)


def test_bits_lie_as_the_values_do(x):
    packed = sign_bits.pack(x > 0, x)
    memory = torch.empty_like(x).copy_(x).as_strided((x.numel(),), (1,))
    for index, value in enumerate(memory.tolist()):
        assert bool(packed[index // 8] >> index % 8 & 1) == (value > 0)
