"""Check 3: the losses of samples, and when their gap is more than noise."""

import pytest
import torch
from torch.nn import functional as F

from anynorm.doctor.checks.training import LEVEL, p_of_no_gap
from anynorm.doctor.losses import _by_sample, default_loss


@pytest.mark.parametrize("kind", ["classes", "pixels", "padded", "numbers", "last axis"])
def test_the_losses_of_samples_average_to_that_of_the_batch(kind):
    torch.manual_seed(0)
    scores, target = torch.randn(6, 4), torch.randint(4, (6,))
    if kind in ("pixels", "padded"):
        scores, target = torch.randn(6, 4, 3, 5), torch.randint(4, (6, 3, 5))
    if kind == "padded":
        target[:, 1] = -100
    expected = F.cross_entropy(scores, target)
    if kind == "last axis":
        scores, target = torch.randn(6, 7, 4), torch.randint(4, (6, 7))
        expected = F.cross_entropy(scores.movedim(-1, 1), target)
    if kind == "numbers":
        target = torch.randn(6, 4)
        expected = F.mse_loss(scores, target)
    assert _by_sample(scores, (None, target)).shape == (6,)
    torch.testing.assert_close(default_loss(scores, (None, target)), expected)


@pytest.mark.parametrize("cut", [(1, 64), (3, 16), (5, 16), (20, 16), (20, 1)])
@pytest.mark.parametrize("skew", [0, 1])
def test_no_gap_is_rarely_called_one(cut, skew):
    torch.manual_seed(0)
    wrong = 0
    for _ in range(1000):
        gaps = torch.randn(*cut, dtype=torch.float64)
        gaps = gaps.exp() - torch.tensor(0.5).exp() if skew else gaps
        wrong += p_of_no_gap(list(gaps)) < LEVEL
    assert wrong <= 14  # 0.005 of 1000, and four deviations


def test_batches_that_differ_count_as_one_each():
    torch.manual_seed(0)
    wrong = 0
    for _ in range(500):
        gaps = torch.randn(8, 32, dtype=torch.float64) + torch.randn(8, 1, dtype=torch.float64)
        wrong += p_of_no_gap(list(gaps)) < LEVEL
    assert wrong <= 9


def test_a_gap_is_found_in_one_batch_and_in_few():
    torch.manual_seed(0)
    for cut in ((1, 64), (3, 32), (5, 16)):
        found = sum(p_of_no_gap(list(torch.randn(*cut) + 0.6)) < LEVEL for _ in range(100))
        assert found >= 93
