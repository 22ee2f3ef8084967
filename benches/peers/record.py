"""The least times as runs of a record of docs/benchmarks, one for linear layers and one for attention: what scripts/benchmarks.py makes
pages of."""

import sys
from pathlib import Path

import verdict

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import benchmarks  # noqa: E402


def cpu_name():
    return benchmarks.cpu()["name"]


def tables(results):
    """One for each kind of rows: siskin beside the fastest peer."""
    columns = ["problem", "siskin", "siskin us", "peer", "peer us", "peer / siskin"]
    about = {"unit": "x", "digits": 2, "bar": "peer / siskin", "columns": columns}
    made = {}
    for row in map(verdict.row_of, results):
        if row.peer:
            cells = [row.name, row.form, round(row.siskin, 1), f"{row.peer}, {row.peer_form}", round(row.peer_us, 1), round(row.ratio, 2)]
            made.setdefault(row.kind, []).append(cells)
    return [{"title": f"Least times in microseconds: {kind}"} | about | {"rows": rows} for kind, rows in made.items()]


def run(name, title, about, flags, results):
    command = f"cargo build --release -p siskin-cli && target/peers/bin/python benches/peers/peers.py{flags}"
    return {"name": name, "title": title, "about": about, "command": command, "tables": tables(results)}


def write(args, results):
    """Replaces the runs of these names in the record."""
    peers = sorted({peer for result in results for peer in result["peers"]})
    about = (
        f"By turns within the same minutes, the least of {args.rounds} rounds or more, {args.threads} thread{'s' * (args.threads > 1)}; "
        f"{', '.join(peers)}. The fastest peer of each row and its fastest form stand beside siskin's fastest form; "
        "[benches/peers](../../benches/peers/README.md) explains both. A bar is how many times as long the peer takes."
    )
    flags = " --quick" * args.quick + f" --rounds {args.rounds}"
    of_attention = [result for result in results if result["kind"] == "attention"]
    linear = [result for result in results if result["kind"] != "attention"]
    if linear:
        made = run("peers", "Linear layers beside other libraries", [about], flags, linear)
        benchmarks.record_run(args.record, made)
    if of_attention:
        heads = "12 heads of 64 features; clipped is gamma = -0.025, zeta = 1. "
        made = run("peers-attention", "Attention beside other libraries", [heads + about], flags, of_attention)
        benchmarks.record_run(args.record, made)
