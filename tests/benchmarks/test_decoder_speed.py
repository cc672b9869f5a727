"""The benchmark of a decoder's speed: the page shows the result."""

import load_benchmarks  # noqa: F401
from benchmarks import ROOT, decoder_speed
from benchmarks.result_files import read


def test_the_page_has_the_table_of_the_result():
    words = decoder_speed.table(read(decoder_speed.FILE)["rows"])
    text = (ROOT / "docs" / "families.md").read_text()
    assert f"<!-- decoder speed -->\n{words}\n<!-- end of decoder speed -->" in text
