"""
Planners that are wrong in ways that are easily come by, each of which some property has to notice.

A copy of the program is made, one line of it made wrong, and the properties run on that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import buttersink

TOP = Path(__file__).parents[2]
PROPERTIES = (
    "tests/properties/test_choosing.py",
    "tests/properties/test_planner_core.py",
    "tests/unit/test_candidates.py",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is made wrong: in which module which text becomes which, and what has to notice."""

    module: str
    right: str
    wrong: str
    noticed_by: str


MUTANTS = {
    "chains priced where snapshots are whole, and not where diffs stay diffs": Mutant(
        "costs", "if self.keeps_diffs else []", "if not self.keeps_diffs else []", "TestChoice"
    ),
    "stored diffs cost what sending them would": Mutant(
        "choosing",
        "(problem.weights.keeping(length) if problem.prunes else 0)",
        "problem.weights.sending(length)",
        "TestChoice",
    ),
    "nothing is made from what is newer": Mutant(
        "candidates", "if distance <= _NEWER:", "if distance <= 0:", "TestCandidates"
    ),
    "a chain's price is for one snapshot, whatever hangs below": Mutant(
        "rehanging",
        "network.rates[arc] * load",
        "network.rates[arc]",
        "TestChoice",
    ),
    "cycles are not opened where the tree enters them": Mutant(
        "arborescence", "inner = heads[arc]\n", "inner = node\n", "TestChoice or Cheapest"
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    package = tmp_path / "buttersink"
    shutil.copytree(Path(buttersink.__file__).parent, package)
    module = package / "planner" / f"{mutant.module}.py"
    text = module.read_text("utf-8")
    assert text.count(mutant.right) == 1, f"{mutant.module} has changed: change the mutant, too"
    module.write_text(text.replace(mutant.right, mutant.wrong), "utf-8")
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *PROPERTIES,
            "-k",
            mutant.noticed_by,
        ],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == pytest.ExitCode.TESTS_FAILED, found.stdout[-3000:]
    assert "1 failed" in found.stdout
