"""From records to evidence: every number, sentence and figure of the report, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims import QUESTIONS, ask
from anynorm.study.claims.outcome import base_text
from anynorm.study.readable import readable
from anynorm.study.selection import Runs, by_label, studies
from anynorm.study.spread import Record
from anynorm.study.verdict import decide

__all__ = ["build"]


def build(
    records: Sequence[Record],
    *,
    title: str,
    command: str,
    planned: int | None = None,
    failures: Sequence[tuple[str, str]] = (),
    margin: float | None = None,
    looks: int = 1,
    stopped: str = "",
) -> dict[str, Any]:
    """Return the evidence from `records` as plain values for JSON and `anynorm.report`.

    `command` is the command that made the study. `planned` is the number of runs of the whole
    study; if there are fewer records, the study is ``partial``. `failures` are the runs that ended
    in an error, in words, each with the reason; runs with equal reasons are grouped. Each study
    lists the questions without an answer under ``missing``; ``unread`` lists the parts of records
    that could not be read. `margin` is that of `anynorm.study.selection.studies`, `looks` that of
    `anynorm.study.verdict.decide`; `stopped` says why a growing study stopped.

    >>> build([], title="digits", command="anynorm study")["studies"]
    []
    """
    records, faults = readable(records)
    found = studies(records, margin)
    return {
        "title": title,
        "command": command,
        "runs": len(records),
        "planned": planned,
        "partial": planned is not None and len(records) < planned,
        "stopped": stopped,
        "failures": _failures(failures),
        "unread": [
            {"part": fault.part, "why": fault.why, "runs": runs} for fault, runs in faults.items()
        ],
        "diverged": sum(record["status"] != "ok" for record in records),
        "seeds": sorted({record["cell"]["seed"] for record in records}),
        "environment": _environment(records),
        "probing": _probing(records),
        "labels": _labels(found),
        "studies": [_study(runs, looks) for runs in found],
    }


def _failures(failures: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return each reason with its runs, the most frequent first."""
    found: dict[str, list[str]] = {}
    for run, reason in failures:
        found.setdefault(reason.strip(), []).append(run)
    rows = [{"reason": reason, "runs": runs} for reason, runs in found.items()]
    return sorted(rows, key=lambda row: -len(row["runs"]))


def _study(runs: Runs, looks: int) -> dict[str, Any]:
    claims = [ask(question, runs) for question in QUESTIONS]
    return {
        "subject": runs.subject,
        "data": runs.data,
        "optimizer": runs.optimizer,
        "score": {"name": runs.score.name, "percent": runs.score.higher_is_better},
        "base": base_text(runs),
        "runs": len(runs.records) + len(runs.controls),
        "seeds": sorted({record["cell"]["seed"] for record in runs.records}),
        "verdict": decide(runs, looks=looks),
        "claims": [claim for claim in claims if claim["missing"] is None],
        "missing": [
            {"title": claim["title"], "reason": claim["missing"]}
            for claim in claims
            if claim["missing"] is not None
        ],
    }


def _labels(found: Sequence[Runs]) -> list[str]:
    """Return every normalizer of every study, so that each keeps one colour on the whole page."""
    names = [name for runs in found for name in (*runs.labels, *by_label(runs.controls))]
    return sorted(dict.fromkeys(names), key=lambda name: name != "none")


def _environment(records: Sequence[Record]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, version in (record.get("environment") or {}).items():
            found.setdefault(name, set()).add(str(version))
    return {name: sorted(versions) for name, versions in found.items()}


def _probing(records: Sequence[Record]) -> dict[str, float | None]:
    """Return the seconds spent on probes, and on the training that they measured."""
    probed = [record.get("cost") or {} for record in records if record.get("probes")]
    seconds = _total(probed, "probe_seconds")
    training = _total(probed, "train_seconds")
    return {
        "probe_seconds": seconds,
        "train_seconds": training,
        "all_train_seconds": _total(
            [record.get("cost") or {} for record in records], "train_seconds"
        ),
        "share": seconds / training if training else None,
    }


def _total(costs: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(sum(cost.get(key) or 0.0 for cost in costs))
