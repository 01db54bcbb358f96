"""Run the tests that need a GPU (`pytest -m gpu`).

Part 1 of benchmarks/gpu.sh. Writes OUT/tests.json with the outcome of each test. Tests that compile
run last, and no test starts once the time limit is near. The smoke run takes the tests that can
also run on a CPU, except those that compile.
"""

import argparse
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from gpu_common import PartResults, common_parser, parse, time_left

TESTS = Path(__file__).parents[1] / "tests"


class Recorder:
    """pytest plugin that saves each outcome and keeps to the time limit.

    Args:
        options: Parsed options.
        results: Receives one row per test.
    """

    def __init__(self, options: argparse.Namespace, results: PartResults) -> None:
        self.options, self.results = options, results

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Move tests that compile to the end."""
        items.sort(key=lambda item: "compile" in item.nodeid)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test if little time is left."""
        if time_left(self.options) < (25 if "compile" in item.nodeid else 5):
            pytest.skip("the time limit is near")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Save the outcome: that of the test itself, or of a setup or teardown that ended it."""
        report = yield
        if report.when == "call" or report.outcome != "passed":
            self.results.add(
                test=report.nodeid,
                outcome=report.outcome,
                seconds=round(report.duration, 2),
            )
            if report.outcome == "failed":
                self.results.problem(report.nodeid, call.excinfo and call.excinfo.value)
        return report


def main() -> None:
    """Run the tests and exit with 1 if one failed."""
    options = parse(common_parser(__doc__, seconds=90))
    results = PartResults(options, "tests")
    recorder = Recorder(options, results)
    files = [str(file) for file in sorted(TESTS.rglob("test_*.py")) if marks_gpu(file)]
    smoke = ["--gpu-tests-on-cpu", "-k", "not compile"] if options.smoke else []
    arguments = ["-m", "gpu", "-q", "--tb=short", "-p", "no:cacheprovider", *smoke, *files]
    status = pytest.main(arguments, plugins=[recorder])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        results.problem("pytest", f"exit status {status!r}; its output is in the log")
    results.finish()
    sys.exit(int(status))


def marks_gpu(file: Path) -> bool:
    """Return True if a test file marks tests for the GPU.

    Other files are not collected, because their packages may be missing on the GPU machine.
    """
    return "mark.gpu" in file.read_text()


if __name__ == "__main__":
    main()
