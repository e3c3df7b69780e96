"""Run tests/gpu on a device: ``tests.json`` gets a row the moment a test ends."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keep.config.cli import Parser, run
from keep.utils.io import write_file
from scripts.gpu_kit.kit import ROOT
from scripts.gpu_kit.plan import gpu_test_files


class Rows:
    """A plugin of pytest that writes the result of each test to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One row a test: of its call, or of a set-up that skips or fails."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            reason = ""
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                reason = (crash.message if crash else report.longreprtext).strip().partition("\n")[0][:200]
            elif report.skipped:
                reason = str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.rows.append(
                {"test": report.nodeid, "result": report.outcome, "s": round(report.duration, 2), "reason": reason}
            )
            write_file(self.path, json.dumps({"rows": self.rows}, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser(prog="scripts.gpu_kit.tests", description="Run tests/gpu on a device.")
    p.add_argument("--device", default="cuda", help="cpu or cuda")
    p.add_argument("--out", type=Path, required=True, help="folder of tests.json and junit.xml")
    p.add_argument("files", type=Path, nargs="*", help="test files (default: tests/gpu)")
    args = p.parse_args(argv)
    files = [str(path) for path in args.files or gpu_test_files()]
    options = ["-v", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    options += ["--device", args.device, f"--junitxml={args.out / 'junit.xml'}"]
    return int(pytest.main([*options, *files], plugins=[Rows(args.out / "tests.json")]))


if __name__ == "__main__":
    sys.exit(run(main))
