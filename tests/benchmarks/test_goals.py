"""The goals, computed from results that nobody measured."""

import pytest
from benchmarks.speed.goals import GOALS, goal_lines, outcome
from unmeasured import gpu_result, processor_results

from anynorm.errors import AnynormError

FORWARD, BOTH, PEERS, PLAIN, FUSED, KEPT, LAST, SMALL = GOALS


def test_every_goal_wants_cells():
    assert [len(goal.cells) for goal in GOALS] == [64, 64, 12, 36, 72, 72, 16, 168]


def test_a_copy_forward_reaches_the_bandwidth_and_both_passes_exceed_it():
    found = outcome(FORWARD, [gpu_result("rows", ours=0.1)])
    assert (found.wanted, found.measured, found.met, found.verdict) == (64, 64, 64, "yes")
    assert found.worst[1] == pytest.approx(1.0)
    # Five tensors move in both passes, two in a copy.
    assert outcome(BOTH, [gpu_result("rows", ours=0.25)]).worst[1] == pytest.approx(1.0)
    assert outcome(BOTH, [gpu_result("rows", ours=0.3)]).verdict == "no"


def test_missing_cells_leave_a_goal_open():
    result = gpu_result("rows")
    result["cases"] = result["cases"][:10]
    assert outcome(FORWARD, [result]).verdict == "open"
    assert outcome(SMALL, [result]).verdict == "not measured"
    assert outcome(SMALL, []).verdict == "not measured"


def test_one_cell_decides_against_a_goal():
    result = gpu_result("images", eager=0.14)
    assert outcome(PLAIN, [result]).verdict == "yes"
    assert outcome(FUSED, [result]).verdict == "no"
    slow = next(row for row in result["cases"] if row["name"] == PLAIN.cells[3])
    slow["ratio"]["eager"]["median"] = 1.2
    found = outcome(PLAIN, [result])
    assert (found.met, found.verdict, found.worst) == (35, "no", (PLAIN.cells[3], 1.2))


def test_the_slowest_comparison_counts_against_all_peers():
    result = gpu_result("rows", others={"liger": 0.09})
    assert outcome(PEERS, [result]).met == 0
    assert outcome(PEERS, [gpu_result("rows", others={"liger": 0.11})]).verdict == "yes"


def test_a_cell_measured_twice_counts_by_the_worse():
    good, bad = gpu_result("images", eager=1.0), gpu_result("images", eager=0.1)
    assert outcome(LAST, [good, bad]).verdict == outcome(LAST, [bad, good]).verdict == "no"


def test_where_we_fail_the_goal_is_missed():
    result = gpu_result("rows")
    name = FORWARD.cells[0]
    result["cases"] = [row for row in result["cases"] if row["name"] != name]
    result["failed"] = [{"name": name, "contestant": "ours", "reason": "no"}]
    found = outcome(FORWARD, [result])
    assert (found.measured, found.met, found.verdict) == (64, 63, "no")
    result["failed"][0]["contestant"] = "liger"
    assert outcome(FORWARD, [result]).verdict == "open"


def test_half_of_the_bytes():
    assert outcome(KEPT, [gpu_result("images", kept=0.53)]).verdict == "yes"
    assert outcome(KEPT, [gpu_result("images", kept=0.6)]).verdict == "no"


def test_the_table():
    lines = list(goal_lines([gpu_result("rows"), gpu_result("launch", eager=0.05)]))
    assert lines[0].startswith("NVIDIA H200, driver 1.2")
    assert "Compared with torch.nn; 0 contestants failed" in lines[1]
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(GOALS)
    assert any("| not measured | 0 | 0 | 36 | – |" in line for line in lines)
    assert any("| no | 0 | 168 | 168 | 0.50 in " in line for line in lines)


def test_results_of_a_processor_reach_no_goal():
    with pytest.raises(AnynormError, match="--device cuda"):
        list(goal_lines(processor_results()))
