"""Siskin and the libraries take turns at a problem, in rounds; what counts is the least time of all rounds.

Each is a process of its own and waits while another has its turn. A round gives each some milliseconds, so that what
disturbs the machine for long hits all alike; quiet.py tells what else does.
"""

import json
import os
import sys
from pathlib import Path

from process import Process

HERE = Path(__file__).resolve().parent
# Each library gets so many threads, and the data of all lie in pages of the same size: NumPy would ask for huge ones.
COMMON = {name: "{threads}" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} | {"NUMPY_MADVISE_HUGEPAGE": "0"}
# Variables that force a kernel upon OpenBLAS: a library here is to choose its own.
FORCED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


# Rounds go on until the least time of each was met twice on a quiet machine, as nearly as this, but not for more than so many times the
# rounds asked for; those that take so many times as long as the fastest do not go on.
AGREED, MOST, SLOWER = 1.015, 4, 1.2


class Library(Process):
    """A file of libraries/ in a process of its own."""

    def __init__(self, module, threads, environment):
        self.module, self.solving = module, False
        filled = {key: value.format(lib=Path(sys.prefix) / "lib", threads=threads) for key, value in (COMMON | environment).items()}
        inherited = {key: value for key, value in os.environ.items() if key not in FORCED}
        super().__init__([sys.executable, "-m", "libraries.serve", module, str(threads)], cwd=HERE, env=inherited | filled)

    def solve(self, problem):
        answer = self.asked(solve=str(problem.folder))
        self.solving = "missing" not in answer
        return answer if self.solving else {"forms": {}, "failed": [answer["missing"]]}

    def turn(self, ms):
        answer = self.asked(ms=ms)
        if "us" not in answer:
            raise SystemExit(f"{self.version}: {answer['missing']}")
        return {answer["form"]: answer["us"]}

    def done(self):
        """Ends the problem; there is no answer to that."""
        if self.solving:
            print(json.dumps({"done": True}), file=self.process.stdin, flush=True)


def settled(times):
    """Whether two rounds agree on the least time: one alone may have met a machine that was quiet for this one only."""
    least = sorted(times)[:2]
    return len(least) == 2 and least[1] <= AGREED * least[0]


class Contest:
    """Rounds of turns. Times of turns that began and ended on a quiet machine count before all others."""

    def __init__(self, all_of_them, quiet, ms):
        self.quiet, self.ms = quiet, ms
        # Of each, by whether the machine was quiet: the least time of each form, and that of each turn.
        self.forms = {who: {True: {}, False: {}} for who in all_of_them}
        self.turns = {who: {True: [], False: []} for who in all_of_them}

    def take_turns(self, some):
        for who in some:
            quiet = self.quiet.waits()
            turn = who.turn(self.ms)
            quiet = quiet and self.quiet.is_now()
            self.turns[who][quiet].append(min(turn.values()))
            forms = self.forms[who][quiet]
            for form, us in turn.items():
                forms[form] = min(us, forms.get(form, us))

    def least(self, who):
        """The least time of each form."""
        return self.forms[who][True] or self.forms[who][False]

    def unsettled(self):
        """Those near the fastest that have not met a least time twice on a quiet machine."""
        fastest = min(min(self.least(who).values()) for who in self.turns)
        near = (who for who in self.turns if min(self.least(who).values()) <= SLOWER * fastest)
        return [who for who in near if not settled(self.turns[who][True])]

    def rounds(self, count):
        for _ in range(count):
            self.take_turns(self.turns)
        for _ in range((MOST - 1) * count):
            self.take_turns(self.unsettled())


def measured(problem, siskin, libraries, quiet, rounds, ms):
    """A row of the result: the least time of siskin and of each library that solves the problem, and in which form."""
    quiet.new_row()
    solved = {}
    for who in (siskin, *libraries):
        quiet.waits()
        solved[who] = who.solve(problem)
    able = [library for library in libraries if solved[library]["forms"]]
    contest = Contest([siskin, *able], quiet, ms)
    contest.rounds(rounds)
    for library in libraries:
        library.done()
    best = {who: min((us, form) for form, us in contest.least(who).items()) for who in contest.turns}
    us, form = best[siskin]
    return {
        "row": problem.row.name, "kind": problem.row.kind, "version": siskin.version,
        "siskin": us, "form": form, "plain": min((us for form, us in contest.least(siskin).items() if siskin.is_plain(form)), default=us),
        "peers": {library.version: {"us": best[library][0], "form": best[library][1]} for library in able},
        "failed": {library.version: solved[library]["failed"] for library in libraries if solved[library]["failed"]},
        "unsettled": [who.version for who in contest.unsettled()], "yardstick": quiet.best,
    }
