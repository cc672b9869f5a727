"""The sizes of what reaches normalizers with statistics of each input: checks 29 to 31."""

from __future__ import annotations

from anynorm.doctor.case import Case, Found, Numbers, Outcome
from anynorm.doctor.geometry import epsilon, shares_batch
from anynorm.doctor.record import Record

__all__ = ["by_epsilon", "growing", "massive"]

MASSIVE, ABSOLUTE = 1e3, 100.0  # times the median; and at least
GROWTH = 30.0
DEPTH = 4  # layers, at least
SHARE = 0.5


def _of_each_input(case: Case) -> list[Record]:
    """The layers that take statistics from each input, in the order of the forward pass."""
    records = case.measured.records
    return [r for r in records if not shares_batch(r.norm) and not r.norm.keeps and r.finite]


def massive(case: Case) -> Outcome:
    """Check 29."""
    found = []
    for record in _of_each_input(case):
        seen = record.magnitudes
        if seen.median > 0 and seen.largest > max(MASSIVE * seen.median, ABSOLUTE):
            found.append((seen.largest / seen.median, record))
    if not found:
        return
    ratio, worst = max(found, key=lambda pair: pair[0])
    seen = worst.magnitudes
    numbers: Numbers = {
        "largest": seen.largest,
        "median": seen.median,
        "ratio": ratio,
        "channel": seen.channel,
        "position": seen.position,
        "layers": len(found),
    }
    message = (
        f"the largest input is {seen.largest:.3g}, {ratio:.2g} times the median (channel "
        f"{seen.channel}, position {seen.position})"
    )
    if len(found) > 1:
        message += f"; inputs of {len(found)} layers have such values"
    yield Found(worst.norm.name, message, numbers, ratio / MASSIVE)


def growing(case: Case) -> Outcome:
    """Check 30."""
    records = _of_each_input(case)
    if not records:
        return
    # Norms inside a block, such as of queries and keys, are not on the residual stream.
    width = records[-1].norm.channels
    stream = [r for r in records if r.norm.channels == width and r.magnitudes.median > 0]
    if len(stream) < DEPTH:
        return
    # The first layers see the embedding, which is small in healthy models too.
    early, last = stream[len(stream) // 4], stream[-1]
    ratio = last.magnitudes.median / early.magnitudes.median
    if ratio > GROWTH:
        numbers: Numbers = {
            "median early": early.magnitudes.median,
            "median at the end": last.magnitudes.median,
            "ratio": ratio,
            "from": early.norm.name,
        }
        message = (
            f"the median size of the input grows from {early.magnitudes.median:.3g} at "
            f"{early.norm.name!r} to {last.magnitudes.median:.3g} here, by a factor of {ratio:.3g}"
        )
        yield Found(last.norm.name, message, numbers, ratio / GROWTH)


def by_epsilon(case: Case) -> Outcome:
    """Check 31."""
    for record in _of_each_input(case):
        seen = record.magnitudes
        if not seen.sets or seen.small < SHARE * seen.sets:
            continue
        eps = epsilon(record.norm.layer)
        numbers: Numbers = {"ε": eps, "sets": seen.sets, "below ε": seen.small}
        message = (
            f"the mean square is below ε = {eps:g} in {seen.small} of {seen.sets} sets of values, "
            "so ε and not the data scales them"
        )
        yield Found(record.norm.name, message, numbers, seen.small / (SHARE * seen.sets))
