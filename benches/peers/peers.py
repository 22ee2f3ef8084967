#!/usr/bin/env python3
"""Siskin beside other libraries on the same problems, by turns. README.md says how to install the libraries."""

import argparse
import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
try:
    import libraries
    import problem
except ImportError as missing:
    raise SystemExit(f"{missing}: run this with the Python of the virtual environment that README.md makes")
import record
import rows
import verdict
from quiet import Quiet
from results import Results
from siskin import Siskin, version_of
from turns import measured


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows, in some 2 minutes")
    parser.add_argument("--only", metavar="REGEX", default="", help="only rows whose name has this")
    parser.add_argument("--list", action="store_true", help="name the rows, and measure nothing")
    parser.add_argument("--peers", metavar="NAME,..", help=f"only these of {', '.join(libraries.NAMES)}")
    parser.add_argument("--libdnnl", metavar="PATH", action="append", default=[], help="measure this libdnnl.so too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--siskin", default=ROOT / "target" / "release" / "siskin", help="the siskin to measure")
    parser.add_argument("--rounds", type=int, default=6, help="how often each has a turn, and more often where times are noisy")
    parser.add_argument("--turn-ms", type=float, default=20, help="milliseconds each has in a round")
    parser.add_argument("--keep", metavar="FILE", help="keep rows in this file, and do not measure those again that it has")
    parser.add_argument("--times", type=int, default=1, help="how often a row is measured; the least times of all count")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time; with --keep, go on later")
    parser.add_argument("--record", metavar="RECORD", help="write the least times into a record, or into that of this CPU in a folder")
    return parser.parse_args()


def line(result):
    """A row of the table that is printed."""
    row = verdict.row_of(result)
    others = sorted((found["us"], name, found["form"]) for name, found in result["peers"].items())
    cells = [row.name, f"{row.siskin:.1f} ({row.form})", f"{row.plain:.1f}"]
    cells += [f"{row.ratio:.2f}", ("ahead" if row.ahead else "NOT AHEAD") + ", noisy" * row.noisy] if row.peer else ["", "alone"]
    cells.append("; ".join(f"{us:.1f} {name}, {form}" for us, name, form in others))
    return f"| {' | '.join(cells)} |"


def measure(args, chosen, results):
    """Measures rows that were not measured as often as they are to be, the rarest first, until the time is over."""
    start, quiet = time.monotonic(), Quiet(results.yardstick())
    siskin, contestants = Siskin(args.siskin, args.threads), []
    for library in libraries.started(args.peers, args.threads, args.libdnnl):
        if library.missing:
            print(f"without {library.module}: {library.missing}", file=sys.stderr)
        else:
            contestants.append(library)
    names = ", ".join(who.version for who in (siskin, *contestants))
    print(f"{record.cpu_name()}, {args.threads} thread{'s' * (args.threads > 1)}; {names}, Python {platform.python_version()}.")
    print(f"Least times of {args.rounds} rounds in us.\n")
    print("| problem | siskin | its x and y as tokens | peer / siskin | | peers |\n|---|--:|--:|--:|---|---|")
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    try:
        for row in sorted(chosen, key=lambda row: results.times(row.name)):
            if results.times(row.name) >= args.times or time.monotonic() - start > args.seconds:
                break
            problem.make(row, folder / "problem")
            results.add(measured(problem.Problem(folder / "problem"), siskin, contestants, quiet, args.rounds, args.turn_ms))
            print(line(results.result(row.name)), flush=True)
    finally:
        shutil.rmtree(folder)


def main():
    args = arguments()
    chosen = [row for row in rows.rows(args.quick) if re.search(args.only, row.name)]
    if not chosen:
        raise SystemExit(f"no row is named like {args.only!r}: --list names them")
    if args.list:
        print("\n".join(row.name for row in chosen))
        return
    results = Results(args.keep, version_of(args.siskin))
    if any(results.times(row.name) < args.times for row in chosen):
        measure(args, chosen, results)
    done = [results.result(row.name) for row in chosen if results.times(row.name)]
    if args.record:
        record.write(args, done)
    for who, what in sorted({(who, text) for result in done for who, said in result["failed"].items() for text in said}):
        print(f"{who}: {what}", file=sys.stderr)
    found = [verdict.row_of(result) for result in done]
    if missing := sum(results.times(row.name) < args.times for row in chosen):
        print(f"\n{missing} rows are not measured so often yet.")
    print("\n" + "\n".join(verdict.by_kind(found)))
    print(verdict.last_line(found))


if __name__ == "__main__":
    main()
