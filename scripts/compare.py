"""Whether what was measured of a CPU fell: compares two records of docs/benchmarks, row by row.

A figure fell if it is worse by more than its own noise: by more than the noise of both rows together, and than FLOOR percent. The noise
of a row is in its column `noise`: how far the figures of two halves of the rounds were apart, in percent. A row without one, of a
record that is older, counts as if it had UNKNOWN.
"""

from collections import namedtuple

FLOOR, UNKNOWN = 5.0, 5.0
# Where a table does not say `better`: times and sizes by their unit, all else is the better the more.
LESS_IS_BETTER = ("us", "ms", "s", "")

# Of a row. `cases` is how many it is a median of, or none.
Figure = namedtuple("Figure", "value noise cases better unit")
# Percent that a figure fell (of what rose they are negative), and what its noise allows.
Change = namedtuple("Change", "name before after fall allowed")
# Changes beyond noise; names that only one record has; names whose rows cannot be compared.
Comparison = namedtuple("Comparison", "fell rose gone new other")


def better(table):
    return table.get("better") or ("lower" if table["unit"] in LESS_IS_BETTER else "higher")


def figures(run):
    """The figures of a run by the name of their row. Ranges, and tables without a unit, have none."""
    found = {}
    for table in run["tables"]:
        column = "median" if "median" in table["columns"] else table.get("bar")
        if "unit" not in table or column is None:
            continue
        for row in table["rows"]:
            cells = dict(zip(table["columns"], row))
            name = ": ".join([run["name"], table["title"], ", ".join(cell for cell in row if isinstance(cell, str))])
            found[name] = Figure(cells[column], cells.get("noise"), cells.get("cases"), better(table), table["unit"])
    return found


def fall(before, after):
    """By how many percent it is worse, whatever its unit: half the speed is 50, and so is twice the time."""
    part = after.value / before.value if before.better == "higher" else before.value / after.value
    return 100 * (1 - part)


def allowed(before, after):
    noise = sum(UNKNOWN if figure.noise is None else figure.noise for figure in (before, after))
    return max(FLOOR, noise)


def compare(old, new):
    """Of two records of one CPU model."""
    runs = [{run["name"]: run for run in record["runs"]} for record in (old, new)]
    fell, rose, other = [], [], []
    gone, added = ([name for name in a if name not in b] for a, b in (runs, runs[::-1]))
    for run in runs[0].keys() & runs[1].keys():
        before, after = figures(runs[0][run]), figures(runs[1][run])
        gone += [name for name in before if name not in after]
        added += [name for name in after if name not in before]
        for name, a in before.items():
            b = after.get(name)
            if b is None:
                continue
            if (a.cases, a.better, a.unit) != (b.cases, b.better, b.unit) or min(a.value, b.value) <= 0:
                other.append(name)
                continue
            change = Change(name, a, b, fall(a, b), allowed(a, b))
            if change.fall > change.allowed:
                fell.append(change)
            elif -change.fall > change.allowed:
                rose.append(change)
    worst = lambda change: -change.fall
    return Comparison(sorted(fell, key=worst), sorted(rose, key=worst), sorted(gone), sorted(added), sorted(other))


def said(comparison):
    """A line for each finding."""
    lines = []
    for verb, changes in (("fell", comparison.fell), ("rose", comparison.rose)):
        for name, before, after, percent, limit in changes:
            unit = f" {before.unit}" if before.unit else ""
            lines.append(
                f"{verb} by {abs(percent):.0f} % (noise allows {limit:.0f} %): {name}: {before.value:g}{unit}, now {after.value:g}{unit}"
            )
    lines += [f"only in the old record: {name}" for name in comparison.gone]
    lines += [f"only in the new record: {name}" for name in comparison.new]
    lines += [f"not comparable (other cases, or another unit): {name}" for name in comparison.other]
    return lines


def status(comparison):
    """Of the process that compared."""
    return 1 if comparison.fell else 0
