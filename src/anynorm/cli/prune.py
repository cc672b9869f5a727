"""``anynorm prune``: cut channels that matter little, or those of a plan."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from anynorm.cli.edit import OURS, SWITCH, add_edit
from anynorm.cli.subject import Subject
from anynorm.cli.written import say_written
from anynorm.errors import AnynormError
from anynorm.report.files import check_target

if TYPE_CHECKING:
    from torch import nn

    from anynorm.surgery import Result
    from anynorm.surgery.receipt import Log

__all__ = ["add"]

_FLAGS = {"least": "min-channels", "plan_out": "plan-out"}


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    words = "cut the channels that matter least: by default those with the smallest γ"
    parser = add_edit(commands, "prune", _prune, words, data=True, example="--ratio 0.3 ")
    _add_amount(parser)
    add = parser.add_argument
    tolerance = "undo the cut above this relative difference of the outputs (none)"
    least = "keep at least this many channels in each layer (1)"
    add("--min-channels", dest="least", type=int, default=OURS, help=least)
    multiple = "keep a multiple of this many channels in each layer (1)"
    add("--multiple", type=int, default=OURS, help=multiple)
    whole = "layers that are not cut: names, parts of the model, or patterns with * (none)"
    add("--ignore", nargs="+", default=OURS, metavar="NAME", help=whole)
    absorb = "add the constants of cut channels to the next layer; 'channel': exactly at padded "
    absorb += "borders too, by one channel that stays (yes)"
    add("--absorb", nargs="?", const=True, choices=["channel"], default=OURS, help=absorb)
    words = "lose the constants of cut channels (no)"
    add("--no-absorb", dest="absorb", action="store_false", default=OURS, help=words)
    refit = "solve the layers behind the cut anew, and choose by the error that is left (no)"
    add("--refit", action="store_true", help=refit)
    distill = "then train so many steps towards the uncut model's outputs, without labels (0)"
    add("--distill", type=int, default=OURS, metavar="STEPS", help=distill)
    add("--recalibrate", action=SWITCH, default=True, help="recompute statistics from --data (yes)")
    add("--tolerance", type=float, default=OURS, help=tolerance)
    add("--plan-out", metavar="FILE.json", help="write which channels were cut (no)")
    add("--picture", metavar="FILE.svg", help="draw the |γ| of all channels and their gap (no)")


def _add_amount(parser: argparse.ArgumentParser) -> None:
    amount = parser.add_mutually_exclusive_group(required=True)
    add = amount.add_argument
    add("--ratio", type=float, default=OURS, help="the share of channels to cut")
    most = "keep at most this number, or this share if it is not above 1"
    add("--parameters", type=float, default=OURS, help=most)
    add("--flops", type=float, default=OURS, help=most)
    add("--gap", action="store_true", default=OURS, help="cut the channels below the gap of |γ|")
    add("--plan", metavar="FILE.json", help="cut the channels of a plan")


def _prune(
    subject: Subject,
    *,
    plan: str | None,
    recalibrate: bool,
    refit: bool,
    plan_out: str | None,
    picture: str | None,
    **options: Any,
) -> Result:
    if picture is not None:
        _draw(subject, picture)
    batches = subject.batches if recalibrate else None
    if plan is not None:
        _refuse({"plan_out": plan_out, "refit": refit or None, **options})
        return _by_plan(subject, plan, batches, options.get("tolerance"))
    if plan_out is not None:
        check_target(plan_out, "plan")
    from anynorm.surgery.prune import prune

    if refit:
        options["refit"] = subject.batches
    model, example, forward = subject.model, subject.example, subject.forward
    result = prune(model, example, recalibrate=batches, forward=forward, inplace=True, **options)
    if plan_out is not None and not result.receipt.rolled_back:
        result.plan.write(plan_out)
        say_written({"plan": plan_out})
    return result


def _draw(subject: Subject, picture: str) -> None:
    from anynorm.surgery import Gammas

    check_target(picture, "picture")
    Gammas.of(subject.model).picture(picture)
    say_written({"picture": picture})


def _refuse(options: dict[str, Any]) -> None:
    """Raise `AnynormError` for options that contradict a plan."""
    given = [name for name, value in options.items() if value is not None and name != "tolerance"]
    if given:
        words = ", ".join(f"--{_FLAGS.get(name, name)}" for name in given)
        raise AnynormError(f"--plan already says which channels are cut; leave out {words}.")


def _by_plan(subject: Subject, path: str, batches: Any, tolerance: float | None) -> Result:
    from anynorm.surgery.prune import Plan
    from anynorm.surgery.recalibrate import recompute
    from anynorm.surgery.transaction import Trial, perform

    plan = Plan.read(path)

    def change(target: nn.Module, log: Log) -> nn.Module:
        target = plan.apply(target, inplace=True)
        for name in plan.cuts:
            log.change(name, f"cut to {tuple(target.state_dict()[name].shape)}")
        if batches is not None:
            recompute(target, batches, log, forward=subject.forward)
        return target

    trial = Trial(subject.example, subject.forward, tolerance)
    return perform("prune by a plan", subject.model, change, trial, inplace=True)
