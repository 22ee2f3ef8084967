"""Rows that were measured, kept in a file, a line of JSON each. A row that was measured more than once has the least times of all."""

import json
from collections import defaultdict
from pathlib import Path

from quiet import NEAR
from turns import AGREED


class Results:
    def __init__(self, path, version):
        """Those of this version of siskin, and in a file (if any) those that were measured before."""
        self.path, self.version, self.of = path, version, defaultdict(list)
        if path and Path(path).exists():
            for line in Path(path).read_text(encoding="utf-8").splitlines():
                result = json.loads(line)
                if result["version"] == version:
                    self.of[result["row"]].append(result)
        # What was measured while the machine was less quiet than it can be is to be measured again.
        least = self.yardstick()
        for name, results in list(self.of.items()):
            self.of[name] = [result for result in results if result["yardstick"] <= NEAR * least]

    def yardstick(self):
        """That of the machine when it was most quiet."""
        return min((result["yardstick"] for results in self.of.values() for result in results), default=float("inf"))

    def times(self, name):
        """How often a row was measured."""
        return len(self.of.get(name, ()))

    def add(self, result):
        self.of[result["row"]].append(result)
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                print(json.dumps(result), file=file)

    def result(self, name):
        return merged(self.of[name])


def merged(results):
    """The least times of a row that was measured a few times: what disturbs a call only makes it longer."""
    best = dict(results[-1])
    best["siskin"], best["form"] = min((result["siskin"], result["form"]) for result in results)
    best["plain"] = min(result["plain"] for result in results)
    peers = {name for result in results for name in result["peers"]}
    best["peers"] = {
        name: min((result["peers"][name] for result in results if name in result["peers"]), key=lambda found: found["us"]) for name in peers
    }
    # Who settled once has settled, if what it settled at is still the least.
    best["unsettled"] = [who for who in (best["version"], *sorted(peers)) if not least_has_settled(who, results)]
    return best


def least_has_settled(who, results):
    def us(result):
        return result["siskin"] if who == result["version"] else result["peers"].get(who, {"us": float("inf")})["us"]

    least = min(map(us, results))
    return any(us(result) <= AGREED * least and who not in result["unsettled"] for result in results)
