"""Compares pruned checkpoints with the dense one by siskin itself, domain by domain, as a table in Markdown.

    python bert/recover/measure.py --siskin target/release/siskin --teacher MODEL --texts TEXTS PRUNED RECOVERED
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import texts


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value in ascending order; values that are equal share the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def compare(vectors: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Vectors of length 1 against the wanted ones: cosines, the order of the similarities of all pairs, and the nearest text."""
    cosines = (vectors * wanted).sum(1)
    pairs = np.triu_indices(len(vectors), 1)
    got, want = vectors @ vectors.T, wanted @ wanted.T
    order = spearman(got[pairs], want[pairs])
    np.fill_diagonal(got, -2)
    np.fill_diagonal(want, -2)
    nearest = float((got.argmax(1) == want.argmax(1)).mean())
    return {"mean": cosines.mean(), "median": np.median(cosines), "least": cosines.min(), "spearman": order, "nearest": nearest}


def embed(siskin: Path, model: Path, lines: list[str], precision: str, work: Path, calibrate: Path) -> np.ndarray:
    """Vectors by `siskin embed`, of length 1."""
    source, out = work / "texts.txt", work / f"{len(list(work.iterdir()))}.npy"
    source.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    command = [siskin, "embed", "--model", model, "--file", source, "--precision", precision, "--truncate", "-o", out]
    command += ["--calibrate", calibrate] if precision == "int8-static" else []
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    vectors = np.load(out)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row(model: str, name: str, count: int, found: dict[str, float]) -> str:
    return (
        f"| {model} | {name} | {count} | {found['mean']:.3f} | {found['median']:.3f} | {found['least']:.3f} "
        f"| {found['spearman']:.3f} | {found['nearest']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare pruned checkpoints with the dense one, domain by domain.")
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--siskin", type=Path, required=True, help="the command")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="folder that bert/fetch_texts.sh wrote")
    parser.add_argument("--count", type=int, default=300, help="texts of each domain")
    parser.add_argument("--precision", default="int8", choices=("f32", "int8", "int8-static"))
    options = parser.parse_args()

    domains = {name: texts.read_lines(path, options.count) for name, path in texts.held_out_files(options.texts).items()}
    lines = [line for found in domains.values() for line in found]
    print("| model | held-out texts of | texts | cosine mean | median | least | Spearman | nearest |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        work, calibrate = Path(work), options.texts / "mixed.txt"
        wanted = embed(options.siskin, options.teacher, lines, "f32", work, calibrate)
        for model in options.models:
            vectors = embed(options.siskin, model, lines, options.precision, work, calibrate)
            at, kinds = 0, {"domains learnt from": [], "other domains": []}
            for name, found in domains.items():
                here = slice(at, at + len(found))
                at += len(found)
                result = compare(vectors[here], wanted[here])
                kinds["other domains" if name.startswith("other ") else "domains learnt from"].append(result)
                print(row(model.name, name, len(found), result), flush=True)
            for kind, results in kinds.items():
                mean = {key: float(np.mean([r[key] for r in results])) for key in results[0]}
                print(row(model.name, f"mean of {kind}", len(results), mean), flush=True)
            print(row(model.name, "all together", len(lines), compare(vectors, wanted)), flush=True)


if __name__ == "__main__":
    main()
