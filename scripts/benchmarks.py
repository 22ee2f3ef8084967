#!/usr/bin/env python3
"""Measures this CPU, and makes the pages and charts of docs/benchmarks, and docs/speedup.svg, from the records beside them.

    scripts/benchmarks.py measure           measures with target/release/siskin for some 5 minutes, writes the record of this CPU and
                                            the pages, and fails if a figure of the record as it was before fell by more than its noise
    scripts/benchmarks.py measure --full    for some 40 minutes, more shapes and lengths
    scripts/benchmarks.py measure --compare-only OLD.json NEW.json
    scripts/benchmarks.py pages             writes the pages anew
    scripts/benchmarks.py check             fails if a page is missing, out of date, or left over

A record is a JSON file that holds what was measured on one CPU model, `<vendor>-<family>-<model>.json`. It is written by the
scripts that measure (this one, scripts/bert_table.py, benches/peers/peers.py and encoders.py), a run at a time; docs/benchmarks/README.md
explains its fields. Needs nothing but Python's standard library.
"""

import argparse
import datetime
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.sax.saxutils import escape

import compare

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "benchmarks"
HEADLINE = "speedup.svg"
# Tables of this title, of all CPUs, are the chart of the project's README.
HEADLINE_TITLE = "Speed-up over dense"
# Columns that are printed in the unit of their table.
FIGURES = ("median", "min", "max", "from", "to")
MARK = ("<!-- the table of CPUs, by scripts/benchmarks.py pages -->", "<!-- its end -->")


# Records


def cpu():
    """The CPU that this runs on: what tells its model from others."""
    fields = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    if "vendor_id" in fields:
        vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(fields["vendor_id"], fields["vendor_id"].lower())
        family, model = int(fields["cpu family"]), int(fields["model"])
    else:
        vendor, family, model = "arm", int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
    return {"name": fields.get("model name", vendor), "vendor": vendor, "family": family, "model": model}


def stem(cpu):
    return f"{cpu['vendor']}-{cpu['family']}-{cpu['model']}"


def build():
    """The commit, and whether the tree differs from it in more than what is written here."""

    def git(*args):
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return (git("describe", "--always") or "unknown") + "-dirty" * bool(changed)


def record_run(path, run):
    """Puts a run that was measured here and now into the record at `path`, or of this CPU in the folder `path`, in place of the
    run of that name."""
    here = cpu()
    path = Path(path)
    if path.is_dir():
        path /= f"{stem(here)}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cpu": here, "runs": []}
    if stem(record["cpu"]) != stem(here):
        raise SystemExit(f"{path} is the record of {stem(record['cpu'])}, and this CPU is {stem(here)}")
    run["date"], run["commit"] = datetime.date.today().isoformat(), build()
    before = next((r for r in record["runs"] if r["name"] == run["name"]), None)
    if before is None:
        record["runs"].append(run)
    else:
        if "falls_short" in before:
            run["falls_short"] = before["falls_short"]
            print(f"{path}: read falls_short of {run['name']} again, which was written about the figures before", file=sys.stderr)
        record["runs"][record["runs"].index(before)] = run
    path.write_text(dumps(record) + "\n", encoding="utf-8")


def dumps(value, indent=0):
    """JSON with a line for each field and each row."""
    inside = " " * (indent + 1)
    if isinstance(value, dict) and value:
        fields = [f"{inside}{json.dumps(k)}: {dumps(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(fields) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(v, (dict, list)) or len(str(v)) > 60 for v in value) and not_a_row(value):
        return "[\n" + ",\n".join(inside + dumps(v, indent + 1) for v in value) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False)


def not_a_row(value):
    return all(isinstance(v, (dict, list, str)) for v in value)


# Pages


def title(cpu):
    return cpu.get("core") or cpu["name"]


def text(table, column, value):
    """A cell as it is printed."""
    if isinstance(value, str):
        return value
    if column in FIGURES:
        return f"{value:.{table['digits']}f} {table['unit']}".rstrip()
    if column == "noise":
        return f"{value:.1f} %"
    if column == table.get("bar"):
        return f"{value:.{table['digits']}f}"
    return f"{value:g}"


def markdown(table):
    columns = table["columns"]
    numeric = [all(not isinstance(v, str) or not v for v in values) for values in zip(*table["rows"])]
    align = ["--:" if n else "---" for n in numeric]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(align)}|"]
    lines += [f"| {' | '.join(text(table, c, v) for c, v in zip(columns, row))} |" for row in table["rows"]]
    return "\n".join(lines)


def page(record):
    cpu, name = record["cpu"], stem(record["cpu"])
    parts = [
        f"# {title(cpu)}",
        f"{cpu['name']}, family {cpu['family']}, model {cpu['model']}. [The other CPUs](README.md) and what the words mean. "
        f"Made by `scripts/benchmarks.py pages` from [{name}.json]({name}.json).",
        *record.get("notes", []),
    ]
    for run in record["runs"]:
        parts += [f"## {run['title']}", *run["about"], f"```sh\n{run['command']}\n```", provenance(run)]
        if charted(run["tables"]):
            parts.append(f"![{run['title']} on {title(cpu)}]({name}-{run['name']}.svg)")
        for table in run["tables"]:
            parts += [f"### {table['title']}", markdown(table)]
        if run.get("falls_short"):
            parts.append("### What falls short")
            parts += run["falls_short"]
    return "\n\n".join(parts) + "\n"


def provenance(run):
    words = [f"Build {run['commit']}, {run['date']}"]
    if "isa" in run:
        words.append(f"kernels of `{run['isa']}`")
    words.append("one thread where nothing else is said")
    if "rounds" in run:
        words.append(f"the best of {run['rounds']} rounds")
    if run.get("peaks"):
        words.append("peaks measured around the cases: " + ", ".join(f"{k} {v:g} GOP/s" for k, v in run["peaks"].items()))
    return "; ".join(words) + "."


def index(records, folder):
    """The index with its table of CPUs made anew."""
    rows = ["| CPU | kernels | what was measured |", "|---|---|---|"]
    for record in records:
        cpu = record["cpu"]
        tiers = sorted({run["isa"] for run in record["runs"] if "isa" in run})
        titles = "; ".join(run["title"] for run in record["runs"])
        rows.append(f"| [{title(cpu)}]({stem(cpu)}.md) | {', '.join(f'`{t}`' for t in tiers)} | {titles} |")
    before, _, rest = (folder / "README.md").read_text(encoding="utf-8").partition(MARK[0])
    _, _, after = rest.partition(MARK[1])
    return f"{before}{MARK[0]}\n" + "\n".join(rows) + f"\n{MARK[1]}{after}"


# Charts

WIDTH, LABELS, BARS, ROW = 940, 470, 360, 20
STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:13px}.bar{fill:#4c8bbf}"
    ".range{stroke:#1b3f5c;stroke-width:1.5;fill:none}.axis{stroke:#bbb}.one{stroke:#b33;stroke-dasharray:3 3}"
)


def bars(table):
    """What a chart shows of a table: (label, value or none, low, high, its text) of each row."""
    columns = table["columns"]
    shown = []
    for row in table["rows"]:
        cells = dict(zip(columns, row))
        label = ", ".join(v for v in row if isinstance(v, str))
        if "median" in cells:
            value = cells["median"]
            low, high = cells.get("min", value), cells.get("max", value)
            words = text(table, "median", value)
        elif "from" in cells:
            value, low, high = None, cells["from"], cells["to"]
            words = f"{text(table, 'from', low).removesuffix(table['unit']).strip()} to {text(table, 'to', high)}"
        elif "bar" in table:
            value = low = high = cells[table["bar"]]
            words = f"{text(table, table['bar'], value)} {table['unit']}"
        else:
            continue
        shown.append((label, value, low, high, words))
    return shown


def charted(tables):
    return [(t["title"], t["unit"], bars(t)) for t in tables if "unit" in t and bars(t)]


def nice(value):
    """The least of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten that is not below `value`."""
    power = 10 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * power >= value * (1 - 1e-9))


def svg(heading, panels, same_scale=False):
    """Bars of the medians, with a line from the least to the greatest; a line alone where there is no median."""
    most = max(high for _, _, rows in panels for _, _, _, high, _ in rows)
    y, body = 28, [f'<text class="title" x="12" y="18" style="font-size:15px">{escape(heading)}</text>']
    for panel, unit, rows in panels:
        top = nice(most if same_scale else max(high for _, _, _, high, _ in rows))
        place = lambda v: f"{LABELS + BARS * v / top:.1f}"
        y += 16
        body.append(f'<text class="title" x="12" y="{y}">{escape(panel)}</text>')
        y += 8
        end = y + ROW * len(rows)
        body.append(f'<path class="axis" d="M{LABELS} {y}V{end}"/>')
        if unit == "x" and top > 1:
            body.append(f'<path class="one" d="M{place(1)} {y}V{end}"/>')
        for label, value, low, high, words in rows:
            middle = y + ROW // 2
            body.append(f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>')
            if value is not None:
                width = f"{BARS * value / top:.1f}"
                body.append(f'<rect class="bar" x="{LABELS}" y="{middle - 6}" width="{width}" height="12"/>')
            if low != high:
                marks = "".join(f"M{place(v)} {middle - 4}v8" for v in (low, high))
                body.append(f'<path class="range" d="M{place(low)} {middle}H{place(high)}{marks}"/>')
            body.append(f'<text x="{LABELS + BARS * high / top + 8:.1f}" y="{middle + 4}">{escape(words)}</text>')
            y += ROW
        y += 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img">'
    frame = f'<title>{escape(heading)}</title><style>{STYLE}</style><rect width="{WIDTH}" height="{y}" fill="#fff"/>'
    return "\n".join([head, frame, *body, "</svg>"]) + "\n"


def headline(records):
    panels = []
    for record in records:
        names = {run["name"] for run in record["runs"]}
        # A quick run speaks only where there is no full one.
        runs = [run for run in record["runs"] if run["name"].removesuffix(QUICK) not in names - {run["name"]}]
        tables = [t for run in runs for t in run["tables"] if t["title"].startswith(HEADLINE_TITLE)]
        panels += [(f"{title(record['cpu'])}: {name[0].lower()}{name[1:]}", u, rows) for name, u, rows in charted(tables)]
    return svg("Pruned layers beside dense ones: how many times as fast (dense is the dashed line)", panels, same_scale=True)


def files(folder=FOLDER):
    """Every file that is made of the records in a folder, and what it should hold."""
    records = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if path.stem != stem(record["cpu"]):
            raise SystemExit(f"{path.name} holds the record of {stem(record['cpu'])}")
        names = [run["name"] for run in record["runs"]]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SystemExit(f"{path.name} has more than one run called {', '.join(sorted(twice))}")
        for table in (t for run in record["runs"] for t in run["tables"]):
            if any(len(row) != len(table["columns"]) for row in table["rows"]):
                raise SystemExit(f"{path.name}: a row of {table['title']!r} has not as many cells as there are columns")
        records.append(record)
    made = {folder / "README.md": index(records, folder), folder.parent / HEADLINE: headline(records)}
    for record in records:
        name = stem(record["cpu"])
        made[folder / f"{name}.md"] = page(record)
        for run in record["runs"]:
            if panels := charted(run["tables"]):
                made[folder / f"{name}-{run['name']}.svg"] = svg(f"{title(record['cpu'])}: {run['title']}", panels)
    return made


def left_over(folder, made):
    return [p for p in sorted(folder.iterdir()) if p.suffix in (".md", ".svg") and p not in made]


def write_pages(folder=FOLDER):
    made = files(folder)
    for path, content in made.items():
        path.write_text(content, encoding="utf-8")
    for path in left_over(folder, made):
        path.unlink()


def wrong_pages():
    made = files()
    stale = [p for p, content in made.items() if not p.exists() or p.read_text(encoding="utf-8") != content]
    return stale + left_over(FOLDER, made)


# Measuring

QUICK = "-quick"
# Seconds that all rounds may take, and milliseconds of each case (none: the tables' own).
BUDGET = {"quick": 270, "full": 2300}
MIN_MS = {"quick": 40, "full": None}


def scope(how):
    """How much of the tables is measured: as little as leaves time for several rounds."""
    from bert_table import ALL

    if how == "full":
        return ALL._replace(
            tokens=(128, 384), layers=ALL.layers[:3], low=(0.7, 0.8), high=(0.9,), repeats=2, seqs=ALL.seqs[:4], kv_lens=ALL.kv_lens[:2],
        )
    return ALL._replace(
        tokens=(128,), layers=ALL.layers[:1], blocks=("4x1", "1x4", "4x4"), float_blocks={"f32": ("4x1", "4x4", "1x4"), "bf16": ("4x4",)},
        low=(0.8,), high=(0.9,), pruned=(0.8, 0.9), few=(768,), repeats=1, large=(), seqs=(128, 384), sequences=4, kv_lens=(4096,),
        codes=(784, 3136),
    )


def with_noise(whole, even, odd):
    """Tables of all rounds, with what those of their halves tell of noise: how far apart their figures are, in percent."""
    made = []
    for table, a, b in zip(whole, even, odd):
        rows = []
        for row, one, other in zip(table["rows"], a["rows"], b["rows"]):
            cells, left, right = (dict(zip(table["columns"], r))["median"] for r in (row, one, other))
            rows.append([*row, round(100 * abs(left - right) / cells, 1) if cells else 0.0])
        made.append(table | {"columns": [*table["columns"], "noise"], "rows": rows})
    return made


# Fields of an answer that are made of others: numerator and denominator, of which an answer has one pair, and what one is.
RATIOS = {
    "pct_peak": ([("gops", "peak_gops"), ("gbits", "peak_gbits")], 100),
    "pct_read": ([("gbps", "read_gbps")], 100),
    "hash_pct_peak": ([("hash_gops", "peak_gops")], 100),
    "hash_pct_bound": ([("hash_bound_us", "hash_us_min")], 100),
    "softmax_ratio": ([("softmax_us_min", "us_min")], 1),
}
TIMES, RATES = ("us_min", "bound_us"), ("gops", "gbps", "gbits", "gadds", "gexps")


def best(turns):
    """Of answers to one case the least time and the highest rate of each field, of the peaks too: what disturbed a peak would else count as
    speed of the case."""
    answer = dict(turns[0])
    for field in answer:
        if field.endswith(TIMES):
            answer[field] = min(turn[field] for turn in turns)
        elif field.endswith(RATES):
            answer[field] = max(turn[field] for turn in turns)
    for field, (pairs, one) in RATIOS.items():
        pair = next((pair for pair in pairs if answer.keys() >= set(pair)), None)
        if field in answer and pair:
            answer[field] = one * answer[pair[0]] / answer[pair[1]]
    if "attend_pct" in answer:
        bounds = [("attend_gadds", "peak_gadds"), ("attend_gbps", "read_gbps")]
        answer["attend_pct"] = max(100 * answer[part] / answer[whole] for part, whole in bounds)
    return answer


def tables_of(kind, scope, rounds):
    """The tables of a kind of run, of the answers of its rounds: of the best of each case."""
    from bert_table import Tables

    def made(some):
        answers = map(best, zip(*some))
        tables = Tables(lambda case: next(answers), scope, lambda line: None)
        kind(tables)
        return tables.tables

    return with_noise(made(rounds), made(rounds[::2]), made(rounds[1::2]))


def measure(how, path):
    """Runs of all kinds, measured in rounds: each table once, then all of them again, while there is time."""
    from bert_table import KINDS, Siskin, Tables, run_of

    chosen = scope(how)
    programs = {kind: Siskin(path, None, MIN_MS[how]) for kind in KINDS}
    rounds = {kind: [] for kind in KINDS}
    start, done = time.monotonic(), 0
    while done < 2 or (time.monotonic() - start) * (done + 1) / done < BUDGET[how]:
        for kind, program in programs.items():
            answers = []

            def run(case):
                answers.append(program(case))
                return answers[-1]

            kind(Tables(run, chosen, lambda line: None))
            rounds[kind].append(answers)
            print(f"round {done + 1}, {kind.__name__}: {len(answers)} cases, after {time.monotonic() - start:.0f} s", flush=True)
        done += 1
    command = "cargo build --release -p siskin-cli && scripts/benchmarks.py measure" + " --full" * (how == "full")
    runs = []
    for kind, program in programs.items():
        run = run_of(kind, program, tables_of(kind, chosen, rounds[kind]), command) | {"rounds": done}
        if how == "quick":
            run["name"] += QUICK
            run["title"] += ", a few shapes"
        if kind.__name__ in ("int8", "floats"):
            run["about"] = [*run["about"], narrowed(chosen)]
        runs.append(run)
    return runs


def narrowed(scope):
    """What was measured of the layers that a page describes."""
    layers, tokens = (", ".join(map(str, some)) for some in ([f"{n}x{k}" for n, k in scope.layers], scope.tokens))
    return f"Of these this run has {layers} with {tokens} tokens, where a row says nothing else."


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def compared(old, new):
    """Prints what differs, and returns the exit status."""
    if stem(old["cpu"]) != stem(new["cpu"]):
        raise SystemExit(f"a record of {stem(old['cpu'])}, and one of {stem(new['cpu'])}")
    comparison = compare.compare(old, new)
    for line in compare.said(comparison):
        print(line)
    print(f"{len(comparison.fell)} figures fell by more than their noise, {len(comparison.rose)} rose")
    return compare.status(comparison)


def measured(args):
    """`measure`: the exit status."""
    if args.compare_only:
        return compared(*map(read, args.compare_only))
    if not Path(args.siskin).exists():
        raise SystemExit(f"there is no {args.siskin}: cargo build --release -p siskin-cli")
    folder = FOLDER
    if args.out:
        folder = Path(args.out) / FOLDER.name
        if not folder.exists():
            shutil.copytree(FOLDER, folder)
    path = folder / f"{stem(cpu())}.json"
    before = read(path) if path.exists() else {"cpu": cpu(), "runs": []}
    for run in measure("full" if args.full else "quick", args.siskin):
        record_run(folder, run)
    write_pages(folder)
    print(f"written: {path}, and the pages beside it")
    return compared(before, read(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="do", required=True)
    commands.add_parser("pages")
    commands.add_parser("check")
    measuring = commands.add_parser("measure")
    measuring.add_argument("--full", action="store_true", help="more shapes and lengths: some 40 minutes instead of 5")
    measuring.add_argument("--siskin", default=ROOT / "target" / "release" / "siskin", help="the siskin to measure")
    measuring.add_argument("--out", metavar="DIR", help="leave docs/ alone, and write into a copy of docs/benchmarks in this folder")
    measuring.add_argument("--compare-only", nargs=2, metavar=("OLD", "NEW"), help="measure nothing: compare two records")
    args = parser.parse_args()
    if args.do == "pages":
        write_pages()
    elif args.do == "check":
        wrong = wrong_pages()
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not what scripts/benchmarks.py pages makes")
        sys.exit(bool(wrong))
    else:
        # 1 means that something fell: what could not be measured or read is 2.
        try:
            status = measured(args)
        except (OSError, ValueError) as error:
            status = str(error)
        except SystemExit as error:
            status = error.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 2
        sys.exit(status)


if __name__ == "__main__":
    main()
