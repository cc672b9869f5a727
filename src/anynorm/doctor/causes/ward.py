"""The state of the search for causes: open findings, a copy of the model, batches for trials."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from anynorm.doctor.case import Case
from anynorm.doctor.causes.score import Score, better, changed, merged, samples, score, worse
from anynorm.doctor.finding import Finding
from anynorm.doctor.losses import Loss
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, part_of, samples_of
from anynorm.surgery.recalibrate import recompute
from anynorm.surgery.receipt import Log
from anynorm.surgery.streaming_stats import in_group

__all__ = ["Edit", "Trial", "Ward"]

PASSES = 2  # of recomputing in a trial: further ones change little, and each costs a pass
LESS = 0.5  # at most this part of a layer's distance is left if a repair explains the finding

Edit = Callable[[nn.Module], nn.Module]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Trial:
    """A repair that was tried: what was measured before and after, or why it was not tried."""

    before: Score
    after: Score
    reason: str = ""  # why it was not tried

    @property
    def refusal(self) -> str:
        """Why the repair is not offered; "" if it is."""
        if self.reason:
            return ""
        if worse(self.before, self.after):
            return f"it raises the loss from {self.before.loss:.3g} to {self.after.loss:.3g}"
        if self.after.loss is not None and math.isnan(self.after.loss):
            return "the loss is NaN afterwards"
        return ""

    @property
    def works(self) -> bool:
        """Whether the loss falls or, without labels, the statistics fit better."""
        if self.reason:
            return False
        if self.before.loss is not None and self.after.loss is not None:
            return better(self.before, self.after)
        return self.fits

    @property
    def fits(self) -> bool:
        """Whether the statistics fit better."""
        return self.after.mean_off < LESS * self.before.mean_off

    @property
    def said(self) -> str:
        """The effect of the repair as text, with the numbers."""
        if self.reason:
            return f"not tried: {self.reason}"
        parts = []
        if self.before.loss is not None and self.after.loss is not None:
            parts.append(f"the loss goes from {self.before.loss:.3g} to {self.after.loss:.3g}")
        if self.before.labels and self.after.labels == self.before.labels:
            right, labels = (self.before.right, self.after.right), self.before.labels
            parts.append(f"right predictions from {right[0]} to {right[1]} of {labels}")
        elif (found := changed(self.before, self.after))[1]:
            parts.append(f"{found[0]} of {found[1]} predictions change")
        if self.before.off:
            now, then = self.after.mean_off, self.before.mean_off
            parts.append(f"the running statistics are off by {now:.2g} σ instead of {then:.2g} σ")
        return "; ".join(parts)

    def restored(self, layer: str) -> bool:
        """Whether the statistics of a layer now fit, or fit much better."""
        now, then = self.after.off.get(layer), self.before.off.get(layer)
        return then is not None and now is not None and now <= max(LESS * then, 0.05)


@dataclass
class Ward:
    """The findings that are still unexplained, and the model with the repairs found so far."""

    case: Case
    findings: list[Finding]  # in the order of the diagnosis
    batches: list[Batch]  # a part of them, to try repairs on
    loss: Loss | None
    model: nn.Module = field(init=False)
    reason: str = ""  # why no repair can be tried

    def __post_init__(self) -> None:
        self.model = self.case.model
        self._known: dict[str, Any] = {}
        if not self.batches:
            self.reason = "there are no batches"
        elif in_group():
            self.reason = "repairs are only tried in a single process"
        elif any(one.severity != "info" for one in self.findings):  # else nothing is repaired
            try:
                self.model = copy.deepcopy(self.case.model).eval()
            except Exception as error:
                self.reason = f"the model cannot be copied ({str(error) or type(error).__name__})"

    @property
    def before(self) -> Score:
        """The score of the model with the repairs found so far."""
        return self.once(
            "before", lambda: self.score(self.model, self.batches) if self.batches else Score()
        )

    def once(self, name: str, measure: Callable[[], _T]) -> _T:
        """Return the cached result of `measure` for this model and these batches."""
        if name not in self._known:
            self._known[name] = measure()
        found: _T = self._known[name]
        return found

    def score(self, model: nn.Module, batches: Sequence[Batch]) -> Score:
        """Measure a model."""
        return score(model, batches, self.loss, self.case.forward)

    def of(self, *checks: int, severe: bool = True) -> list[Finding]:
        """The open findings of some checks; with `severe`, without information."""
        found = [one for one in self.findings if one.check in checks]
        return [one for one in found if one.severity != "info" or not severe]

    def trial(self, edit: Edit, batches: Sequence[Batch] | None = None) -> Trial:
        """Try an edit on a copy of the model, on its own or on other batches."""
        if self.reason:
            return Trial(Score(), Score(), self.reason)
        try:
            edited = edit(copy.deepcopy(self.model)).eval()
            return Trial(self.before, self.score(edited, batches or self.batches))
        except AnynormError as error:
            return Trial(self.before, Score(), str(error).partition("\n")[0])

    def recalibrated(self, prepare: Edit | None = None, layers: Sequence[str] = ()) -> Trial:
        """Recompute the statistics from one half of the batches, and measure on the other half.

        This is done both ways. Statistics of too few samples do not fit the other half.

        Statistics are recomputed in `layers`, or in all layers, after the edit `prepare`.
        """
        if self.reason:
            return Trial(Score(), Score(), self.reason)
        if prepare is not None or layers:
            return self._in_halves(prepare, layers)
        return self.once("recalibrated", lambda: self._in_halves(None, ()))

    def _in_halves(self, prepare: Edit | None, layers: Sequence[str]) -> Trial:
        halves = _halves(self.batches)
        if halves is None:
            return Trial(self.before, Score(), "a single sample cannot be split into halves")
        after = []
        try:
            before = self.once("halves", lambda: merged([self._scored(half) for half in halves]))
            for fit, held in (halves[::-1], halves):
                model = copy.deepcopy(self.model)
                model = model if prepare is None else prepare(model)
                self.recompute(model, layers, fit)
                after.append(self.score(model, held))
        except AnynormError as error:
            return Trial(self.before, Score(), str(error).partition("\n")[0])
        return Trial(before, merged(after))

    def _scored(self, batches: Sequence[Batch]) -> Score:
        return self.score(self.model, batches)

    def too_few(self, trial: Trial) -> str:
        """Why statistics of these batches are not a repair; "" if they are."""
        if trial.reason or not trial.before.off:
            return ""
        count, now, then = samples(self.batches), trial.after.mean_off, trial.before.mean_off
        if now <= then:
            return ""
        return (
            f"{count} samples are too few for these layers: statistics of one half differ from the "
            f"other half by {now:.2g} σ, the present ones by {then:.2g} σ"
        )

    def repaired(self, edit: Edit) -> None:
        """Continue the search with the repaired model."""
        if not self.reason:
            self.model = edit(self.model).eval()
        self._known = {}

    def fed(self, batches: list[Batch]) -> None:
        """Continue the search with other batches."""
        self.batches = batches
        self._known = {}

    def recompute(
        self,
        model: nn.Module,
        layers: Sequence[str] = (),
        batches: Sequence[Batch] | None = None,
    ) -> nn.Module:
        """The edit that recomputes the running statistics of some layers, or of all."""
        # The input of a single layer does not depend on its statistics, so one pass is enough.
        passes = 1 if len(layers) == 1 else PASSES
        options: dict[str, Any] = {"passes": passes, "layers": layers or None}
        recompute(model, batches or self.batches, Log(), forward=self.case.forward, **options)
        return model


def _halves(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]] | None:
    """Two halves of the samples; every second batch goes to the second."""
    if len(batches) > 1:
        return list(batches[::2]), list(batches[1::2])
    count = samples_of(batches[0])
    if count < 2:
        return None
    return [part_of(batches[0], 0, count // 2)], [part_of(batches[0], count // 2, count)]
