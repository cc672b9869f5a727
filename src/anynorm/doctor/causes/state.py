"""Causes that the modules alone show: broken values, ε, frozen layers, train mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn

from anynorm.doctor.causes.evidence import Evidence, counted
from anynorm.doctor.causes.score import better
from anynorm.doctor.causes.ward import Trial, Ward
from anynorm.doctor.finding import Finding
from anynorm.errors import AnynormError
from anynorm.surgery.batches import call, tensors_of
from anynorm.surgery.transaction import copied

__all__ = ["broken", "epsilon", "frozen", "train_mode"]

DEFAULT = 1e-5
USUAL = (1e-5, 1e-3)  # ε of torch, and of TensorFlow and Keras
LARGE = 0.1  # of the median running variance: a larger ε changes the scale of the channels


def broken(ward: Ward) -> Evidence | None:
    """A value that is not finite, or a negative variance."""
    found = ward.of(9)
    if not found:
        return None
    statistics = [one for one in found if "statistic" in one.numbers]
    words = "; ".join(f"{one.layer or 'the model'}: {one.message}" for one in found[:3])
    behind = ward.of(1, 2, 3, 4, 10)
    if len(statistics) < len(found):
        first = next(one for one in found if one not in statistics)
        data = "parameter" not in first.numbers
        effect = "not tried: the right value is unknown"
        return Evidence(found + behind, words, first.fix, effect=effect, data=data)
    layers = tuple(dict.fromkeys(one.layer for one in statistics))
    trial = ward.recalibrated(partial(_reset, layers=layers), layers)
    explained = [one for one in behind if trial.restored(one.layer) or one.check == 3]
    return Evidence(
        found + explained,
        words,
        found[0].fix,
        trial,
        repair="statistics",
        layers=layers,
        go_on=lambda ward: ward.repaired(lambda m: ward.recompute(_reset(m, layers), layers)),
    )


def _reset(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    for name in layers:
        layer = model.get_submodule(name)
        if callable(reset := getattr(layer, "reset_running_stats", None)):
            reset()
    return model


def epsilon(ward: Ward) -> Evidence | None:
    """ε differs from the ε of training."""
    suspects = list(_suspects(ward))
    if not suspects:
        return None
    names = [name for name, _ in suspects]
    own = [one for one in ward.findings if _is_about_epsilon(one) and one.layer in names]
    tried = [(value, _with(ward, suspects, value)) for value in USUAL]
    value, trial = min(tried, key=lambda one: _rank(one[1]))
    present = max(eps for _, eps in suspects)
    if not own and not trial.works and not better(trial.before, trial.after):
        return None
    # A usual ε is not suspicious in itself: another ε must make the statistics fit as well.
    if value == present or (not own and present in USUAL and not trial.fits):
        return None
    words = f"ε is {present:g} in {counted(names)}; the default is {DEFAULT:g}"
    words += f", and with {value:g} the model fits best" if trial.works else ""
    refused, effect = "", ""
    if not trial.reason and not trial.works:
        effect = f"{trial.said}; neither later layers nor labels show which ε was used in training"
        refused = "the measurements do not show which ε was used in training"
    explained = [one for one in ward.of(1, 2, 3) if one.check == 3 or trial.restored(one.layer)]
    edits = tuple((name, value) for name in names)
    line = f"for name in {names!r}: model.get_submodule(name).eps = {value:g}"
    return Evidence(
        own + explained or ward.of(1, 2, 3),
        words,
        line,
        trial,
        sure="certain" if trial.works else "likely",
        repair="eps",
        refused=refused,
        effect=effect,
        edits=edits,
        go_on=lambda ward: ward.repaired(partial(_set, eps=dict(edits))),
    )


def _with(ward: Ward, suspects: Sequence[tuple[str, float]], value: float) -> Trial:
    """Try ε = `value` in the suspected layers; they may have it already."""
    if all(eps == value for _, eps in suspects) and not ward.reason:
        return Trial(ward.before, ward.before)
    return ward.trial(partial(_set, eps={name: value for name, _ in suspects}))


def _suspects(ward: Ward) -> Iterator[tuple[str, float]]:
    """Yield the layers whose ε changes the scale of channels, or has a finding, with their ε."""
    told = {one.layer for one in ward.findings if _is_about_epsilon(one)}
    for norm in ward.case.norms:
        variance = getattr(norm.layer, "running_var", None)
        eps = getattr(norm.layer, "eps", None)
        if variance is None or eps is None or not bool(variance.isfinite().all()):
            continue
        large = eps > max(USUAL) and eps > LARGE * float(variance.median())
        small = eps < min(USUAL) * 10 and float(variance.median()) < 10 * max(USUAL)
        stale = bool(ward.of(1, 2, 3))
        if (norm.name in told and eps not in USUAL) or large or (small and stale):
            yield norm.name, float(eps)


def _is_about_epsilon(finding: Finding) -> bool:
    """A finding of variances below ε in a whole layer, or of ε itself."""
    return (finding.severity != "info" and "ε" in finding.numbers) or "ε" in finding.name


def _set(model: nn.Module, eps: dict[str, float]) -> nn.Module:
    for name, value in eps.items():
        model.get_submodule(name).eps = value  # type: ignore[assignment]
    return model


def _rank(trial: Trial) -> float:
    loss = trial.after.loss
    return trial.after.mean_off if loss is None else loss


def frozen(ward: Ward) -> Evidence | None:
    """γ and β are frozen, but the running statistics are not."""
    found = ward.of(8)
    if not found:
        return None
    words = f"γ and β have no gradients in {len(found)} layers, but running statistics move"
    effect = "outputs in eval mode stay the same"
    return Evidence(found, words, found[0].fix, repair="layer", effect=effect)


def train_mode(ward: Ward) -> Evidence | None:
    """The model was handed over in train mode."""
    found = [one for one in ward.findings if one.name == "handed over in train mode"]
    if not found:
        return None
    return Evidence(found, found[0].message, "model.eval()", effect=_in_train_mode(ward))


def _in_train_mode(ward: Ward) -> str:
    """How the outputs of the first batch differ from those in eval mode."""
    if ward.reason:
        return f"not tried: {ward.reason}"
    before = ward.score(ward.model, ward.batches[:1])
    try:
        model = copied(ward.model).train()
        after = tensors_of(call(model, ward.batches[0], ward.case.forward))[0].detach()
    except AnynormError as error:
        return f"not tried: {error}"
    if not before.predictions or after.dim() < 2:
        return "in eval mode the output of a sample depends only on that sample"
    predicted = after.argmax(1).cpu()
    differ = int((predicted != before.predictions[0]).sum())
    return f"in eval mode {differ} of {predicted.numel()} predictions of the first batch change"
