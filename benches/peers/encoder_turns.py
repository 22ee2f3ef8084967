"""Those that take turns at an encoder: each gives the vectors of texts, and times of calls."""

import statistics
import subprocess
import time

import numpy as np
import onnxruntime

from encoder_table import times_of

# Calls of a turn that do not count, and those that there are at least, however long they take.
WARMING, FEWEST = 2, 3


class OnnxRuntime:
    """A session of one thread."""

    def __init__(self, path, disabled=()):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
        )

    def padded(self, texts):
        """The vectors of texts, lists of tokens, in one batch that is padded to the longest."""
        ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        return self.session.run(["vectors"], {"input_ids": ids, "attention_mask": mask})[0]

    def alone(self, texts):
        """The vectors of texts, each in a call of its own."""
        return np.concatenate([self.padded([text]) for text in texts])

    def turn(self, shape, vocabulary, ms):
        """The least and the median time of calls in microseconds, on random tokens."""
        ids = np.random.default_rng(1).integers(0, vocabulary, (shape.batch, shape.seq))
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for _ in range(WARMING):
            self.session.run(["vectors"], feed)
        times, end = [], time.perf_counter() + ms / 1000
        while len(times) < FEWEST or time.perf_counter() < end:
            start = time.perf_counter()
            self.session.run(["vectors"], feed)
            times.append((time.perf_counter() - start) * 1e6)
        return min(times), statistics.median(times)


class Siskin:
    """The command, with the flags of `siskin bert bench` that say what is computed in and what is pruned."""

    def __init__(self, binary, model, flags):
        self.binary, self.model, self.flags = binary, model, flags

    def vectors(self, precision, texts, folder):
        """The vectors of texts, written to a file and read again."""
        lines, out = folder / "texts.txt", folder / f"{precision}.npy"
        lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
        said(self.binary, "embed", "--model", self.model, "--precision", precision, "--threads", "1", "--file", lines, "-o", out)
        return np.load(out)

    def turn(self, shape, _, ms):
        """The least and the median time of calls in microseconds, on random tokens."""
        size = ("--seq", shape.seq, "--batch", shape.batch, "--threads", 1, "--min-ms", round(ms))
        return times_of(said(self.binary, "bert", "bench", "--model", self.model, *self.flags, *size, "--json"))


def said(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout
