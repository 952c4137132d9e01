"""`python -m security vectors`: the picture fetch and the fuzzed servers.

The fast tests fuzz a little; with --slow as much as `make test-slow` does, 10,000 requests to a real worker included.
"""

from __future__ import annotations

from security.tested import Figures, counted, none_of, run

TESTS = (
    "tests/lambda/test_fetch_vectors.py",
    "tests/lambda/test_fetch_hosts.py",
    "tests/lambda/test_fuzz.py",
    "tests/model/test_inference_fuzz.py",
)


def report(slow: bool = False, figures: Figures | None = None) -> list[str]:
    """Prints the figures, of the tests that it runs or that were counted before; returns what does not hold."""
    figures = figures or counted([run(*([] if slow else ["-m", "not slow"]), *TESTS)])
    kinds = ", ".join(f"{count} {kind}" for kind, count in figures.vectors.items())
    print(f"{sum(figures.vectors.values())} vectors tried ({kinds}): {figures.blocked} blocked")
    print(f"{figures.hosts} hostile hosts met: {figures.survived} survived")
    print(f"{figures.fuzzed} fuzzed inputs answered well")
    if figures.skipped:
        print(f"{len(figures.skipped)} tests skipped: {', '.join(figures.skipped)}")
    counts = {"vector": sum(figures.vectors.values()), "hostile host": figures.hosts, "fuzzed input": figures.fuzzed}
    return [f"failed: {name}" for name in figures.failed] + none_of(counts)
