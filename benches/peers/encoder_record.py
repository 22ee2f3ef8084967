"""The times of an encoder as a run of a record of docs/benchmarks: what scripts/benchmarks.py makes pages of."""

import encoder_table
import record


def run(model, flags, rounds, turn_ms, versions, tables):
    about = (
        f"{model}, from tokens to vectors, one thread; {', '.join(versions)}. By turns within the same minutes, "
        f"{rounds} rounds of {turn_ms:g} ms. Pruned weights are pruned by magnitude without training, for speed alone. "
        "[benches/peers](../../benches/peers/README.md#encoders) explains the measurement. A cosine is that of vectors to those of ONNX "
        "Runtime in f32, the least of a few texts."
    )
    made = [
        {"title": title, "columns": columns, "rows": [[rounded(value) for value in row] for row in rows]}
        for title, columns, rows in tables
    ]
    command = f"cargo build --release -p siskin-cli && target/peers/bin/python benches/peers/encoders.py{flags}"
    title = f"{model} beside other libraries"
    return {"name": f"peers-{model}".lower(), "title": title, "about": [about], "command": command, "tables": made}


def rounded(value):
    return value if isinstance(value, str) else round(value, 5)


def flags(args):
    """Those with which the table is made again, where the models and programs are that README.md makes."""
    peers = [name for name in (args.peers or "").split(",") if name not in ("", encoder_table.DEEPSPARSE)]
    return "".join([
        f" --model models/{args.model.name}",
        f" --seq {args.seq}" * bool(args.seq),
        f" --peers {','.join(peers)}" * bool(peers),
        " --candle target/candle/release/siskin-peer-candle" * bool(args.candle),
        f" --rounds {args.rounds} --turn-ms {args.turn_ms:g}",
    ])


def write(args, versions, tables):
    """Replaces the run of this model in the record."""
    record.benchmarks.record_run(args.record, run(args.model.name, flags(args), args.rounds, args.turn_ms, versions, tables))
