"""Which collectives a piece of code calls, and of how many bytes."""

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Counting"]


class Counting(TorchDispatchMode):
    """Inside it, every functional collective is noted as its name and a rank's bytes."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        space, _, name = func.name().partition("::")
        if space == "_c10d_functional" and not name.startswith("wait"):
            self.calls.append((name, args[0].numel() * args[0].element_size()))
        return func(*args, **kwargs or {})
