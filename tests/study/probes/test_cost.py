import torch
from torch import nn

from anynorm.study.probes.cost import bytes_for_backward

FLOAT = 4


def test_a_linear_layer_keeps_its_input_and_not_its_weight():
    x = torch.randn(10, 3)
    assert bytes_for_backward(nn.Linear(3, 5), x) == x.numel() * FLOAT


def test_a_tensor_kept_by_two_layers_counts_once():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(3, 5), nn.Linear(3, 7)

        def forward(self, x):
            return self.one(x).sum() + self.other(x.view(-1, 3)).sum()

    assert bytes_for_backward(Fork(), torch.randn(10, 3)) == 10 * 3 * FLOAT


def test_each_activation_adds_what_it_keeps():
    # The first layer keeps x, the second the ReLU's output, which is also what the ReLU keeps.
    model = nn.Sequential(nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 1))
    assert bytes_for_backward(model, torch.randn(10, 3)) == (10 * 3 + 10 * 50) * FLOAT


def test_batch_norm_adds_its_input_and_statistics_but_no_buffers():
    plain = nn.Sequential(nn.Linear(3, 5))
    normed = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    x = torch.randn(10, 3)
    added = bytes_for_backward(normed, x) - bytes_for_backward(plain, x)
    assert added == (10 * 5 + 2 * 5) * FLOAT


def test_the_model_is_left_as_it_was():
    model = nn.BatchNorm1d(3)
    with torch.no_grad():
        assert bytes_for_backward(model, torch.randn(10, 3)) > 0
    assert model.num_batches_tracked == 0
    assert model.weight.grad is None
