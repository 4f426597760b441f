"""`make bench`: mpq measured beside other tunnels, and as it grows; writes build/bench.json and build/bench.png.

    python -m tools.bench [--runs N] [ladder|growth|crowd|stages …]      all of them without an argument

Both ends, all contenders, generators and receivers share the machine: ratios within one run and CPU seconds per Gbit
are what can be compared with another machine's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tools.bench.crowd import crowd
from tools.bench.growth import growth
from tools.bench.ladder import CONTENDERS, ladder
from tools.bench.plot import draw
from tools.bench.stages import stages
from tools.results import Results

OUTPUT = Path("build/bench.json")
PICTURE = OUTPUT.with_suffix(".png")
RUNS = 5

_ALL: tuple[Callable[[Results, int], None], ...] = (ladder, growth, crowd, stages)
EXPERIMENTS = {experiment.__name__: experiment for experiment in _ALL}


def main(arguments: list[str]) -> int:
    """Runs the named experiments and prints the table; 0 if every target was met, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench")
    parser.add_argument("--runs", type=int, default=RUNS, help="of every measure; a figure is their median")
    parser.add_argument("names", nargs="*", metavar="experiment", help=", ".join(EXPERIMENTS))
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    results = Results.here()
    names = options.names or list(EXPERIMENTS)
    for name in names:
        print(f"--- {name}: {(EXPERIMENTS[name].__doc__ or '').splitlines()[0]}", flush=True)
        EXPERIMENTS[name](results, options.runs)
        results.write(OUTPUT)  # what was measured stays, even if the next experiment fails
    if "ladder" in names:
        draw(results, [contender.label for contender in CONTENDERS], PICTURE)
    print(results.table())
    return 0 if all(row.met is not False for row in results.rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
