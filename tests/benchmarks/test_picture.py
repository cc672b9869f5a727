"""The pages of results that nobody measured: a processor's, a network's and a GPU's."""

import pytest
from benchmarks import page
from benchmarks.gpu_page import summarize
from benchmarks.picture import latest, main
from benchmarks.resnet_table import table
from benchmarks.result_files import file_name, write
from benchmarks.speed.show import behind
from unmeasured import gpu_result

PAGE = """# Speed
<!-- summary -->
<!-- end of summary -->
<!-- cases -->
old
<!-- end of cases -->
<!-- gpu -->
<!-- end of gpu -->
"""


def test_the_page_shows_every_case_and_marks_those_behind(results, tmp_path):
    files = [tmp_path / file_name(result["about"]) for result in results]
    for path, result in zip(files, results, strict=True):
        write(path, result)
    speed, picture = tmp_path / "speed.md", tmp_path / "images" / "speed.svg"
    speed.write_text(PAGE)
    main([*map(str, files), "--page", str(speed), "--picture", str(picture), "--gpu", str(speed)])
    words = speed.read_text()
    assert picture.read_text().startswith("<svg")
    assert "old" not in words
    assert words.count("**0.50** ±0.00 / **0.50** ±0.00") == len(
        behind(results[0]["cases"])["eager"]
    )
    rows = [line for line in words.splitlines() if line.startswith("| ") and "±" in line]
    assert len(rows) == len(results[0]["cases"])


def test_a_page_without_markers_is_refused(tmp_path):
    path = tmp_path / "speed.md"
    path.write_text("# Speed\n<!-- cases -->\n")
    with pytest.raises(ValueError, match="end of cases"):
        page.fill(path, "cases", "words")
    assert path.read_text() == "# Speed\n<!-- cases -->\n"


def test_the_machine_measured_last_is_shown(results, tmp_path):
    other = {**results[1], "about": {**results[1]["about"], "cpu": "other", "date": "2000-01-01"}}
    for number, result in enumerate([other, *reversed(results)]):
        write(tmp_path / f"{number}.json", result)
    layers, networks = latest(sorted(tmp_path.iterdir()))
    assert [layer["about"]["allocator"] for layer in layers] == ["default", "kept"]
    assert networks == []


def test_the_networks_table(results):
    spread = {"median": 0.9, "low": 0.8, "high": 1.0}
    row = {
        "layout": "contiguous",
        "ms": {"ours": spread, "eager": spread},
        "ratio": spread,
        "memory": {name: {"peak": 100.0} for name in ("ours", "eager")},
        "loss_difference": 1e-7,
    }
    about = {**results[0]["about"], "settings": {"batch": 2, "size": 8, "width": 4}}
    assert "| **0.90** [0.80, 1.00] | 100 MB |" in table([{"about": about, "network": [row]}])


def test_a_setting_alone_has_a_table(results):
    assert "Allocator: default." in page.cases_table(results[:1])


def test_a_busy_machine_is_told_on_the_page(results):
    about = {**results[0]["about"], "cores": 2, "load": 3.5}
    assert "busy" in page.summary([{**results[0], "about": about}])


def gpu_folder(folder):
    """Rows, and a model in training."""
    write(folder / "rows.json", gpu_result("rows", others={"liger": 0.2}))
    spread = {"median": 12.0, "low": 11.0, "high": 13.0}
    names = ("ours", "eager", "ours-compiled", "eager-compiled")
    row = {
        "layout": "channels_last",
        "ms": dict.fromkeys(names, spread),
        "memory": {name: {"peak": 100.0} for name in names},
    }
    about = gpu_result("rows")["about"]
    settings = {"model": "resnet50", "batch": 256}
    write(folder / "resnet50.json", {"about": {**about, "settings": settings}, "network": [row]})
    return folder


def test_the_gpus_part_of_the_page(results, tmp_path):
    folder = gpu_folder(tmp_path / "gpu")
    speed, picture = tmp_path / "speed.md", tmp_path / "images" / "speed.svg"
    speed.write_text(PAGE)
    main([str(folder / "rows.json"), "--page", str(speed), "--picture", str(picture),
          "--gpu", str(folder)])  # fmt: skip
    words = speed.read_text()
    assert "old" in words  # results of a GPU are none of a processor
    assert "| row norms: as fast as every peer | yes | 12 | 12 | 12 |" in words
    assert "| channels_last | anynorm-compiled | 12.0 ms [11.0, 13.0] | 100 MB |" in words
    assert "| torch.nn | Liger-Kernel |" in words
    assert " GB/s, 100%) |" in words
    assert "128 of 128 cases" in words
    assert "(images/speed-gpu.svg)" in words
    assert picture.with_name("speed-gpu.svg").read_text().startswith("<svg")
    assert not picture.exists()


def test_the_summary_beside_the_results(tmp_path):
    folder = gpu_folder(tmp_path)
    told = summarize(folder)
    assert "resnet50" in told
    assert "rms, contiguous" not in told
    assert "rms, contiguous" in (folder / "summary.md").read_text()
    assert (folder / "speed.svg").is_file()
    empty = tmp_path / "empty"
    assert summarize(empty) == "nothing was measured"
    assert not empty.exists()
