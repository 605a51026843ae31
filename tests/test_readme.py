"""The README tells the truth: its commands parse, its files exist, its table lists what is written, its
Python runs.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny_fit import tiny_fit

from facefit.cli.arguments import parse

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def code_blocks() -> list[str]:
    """Indented and fenced blocks."""
    fenced = re.findall(r"```\w*\n(.*?)```", TEXT, re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
    return fenced + indented


def commands() -> list[list[str]]:
    """Every `facefit ...` command with its arguments, in blocks and in running text."""
    sources = [
        part.strip() for block in code_blocks() for line in block.splitlines() for part in line.split("&&")
    ]
    sources += re.findall(r"`(facefit [a-z][^`]*)`", TEXT)
    return [shlex.split(source)[1:] for source in sources if re.match(r"facefit [a-z]", source)]


def test_every_command_is_one_that_facefit_understands():
    found = commands()
    assert len(found) >= 5
    for command in found:
        parse(command)


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT) + re.findall(
        r"\b(?:facefit|experiments)/[\w./]+\.\w+", TEXT
    )
    named += [f"{module.replace('.', '/')}.py" for module in re.findall(r"-m (experiments\.\w+)", TEXT)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert all((ROOT / name).stat().st_size < 300_000 for name in named if name.endswith((".png", ".jpg")))


def test_the_table_of_outputs_is_complete(tmp_path):
    table = TEXT.split("## What is written")[1].split("##")[0]
    promised = {
        name
        for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    }
    fit = tiny_fit(("NAME.jpg",))
    fit.save(tmp_path, {"NAME.jpg": np.zeros((*fit.views[0].size, 3), np.uint8)})
    assert {path.name for path in tmp_path.iterdir()} == promised


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "facefit").symlink_to(ROOT / "facefit")
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in code_blocks() if block.lstrip().startswith("import facefit")]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102  our own README
    assert "fitted" in capsys.readouterr().out
    np.testing.assert_array_equal(names["again"].identity, names["fit"].identity)
