"""Those that take turns at an encoder: each gives the vectors of texts, and times of calls. encoder_libraries/serve.py says what they
are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import encoder_table as tables
from process import Process

HERE = Path(__file__).resolve().parent
# One thread, and nothing is looked for or reported elsewhere.
ENVIRONMENT = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")} | {
    "NUMPY_MADVISE_HUGEPAGE": "0", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "NM_DISABLE_ANALYTICS": "1",
}


class Served(Process):
    """A library of encoder_libraries/ by a Python that has it, or a program that answers the same."""

    def __init__(self, command):
        super().__init__(list(map(str, command)), cwd=HERE, env=os.environ | ENVIRONMENT)

    def vectors(self, tokens):
        """The vectors of texts, lists of tokens, each in a call of its own: a range of bytes is then that of one text."""
        answer = self.asked(vectors=tokens)
        if "missing" in answer:
            raise SystemExit(f"{self.version}: {answer['missing']}")
        return answer["vectors"]

    def turn(self, shape, ids, ms):
        """The least and the median time of calls in microseconds."""
        return tables.times_of(self.asked(time=ids, ms=ms))


class Siskin:
    """The command, with the flags of `siskin bert bench` that say what is computed in and what is pruned."""

    missing = None

    def __init__(self, binary, model, flags):
        self.binary, self.model, self.flags = binary, model, flags

    def vectors(self, precision, texts, calibrate):
        """The vectors of texts, written to a file and read again; static INT8 is calibrated on the texts of another."""
        out = texts.with_name(f"{precision}.npy")
        how = ("--precision", precision, *(("--calibrate", calibrate) if precision == "int8-static" else ()))
        said(self.binary, "embed", "--model", self.model, *how, "--threads", 1, "--file", texts, "-o", out)
        return np.load(out)

    def turn(self, shape, ids, ms):
        """The least and the median time of calls in microseconds, on random tokens of its own."""
        size = ("--seq", shape.seq, "--batch", shape.batch, "--threads", 1, "--min-ms", round(ms))
        return tables.times_of(tables.last_line(said(self.binary, "bert", "bench", "--model", self.model, *self.flags, *size, "--json")))

    def ended(self):
        """Each turn is a process that has ended."""


def said(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def started(who, programs, model, folder):
    """One who takes turns, with what it needs by name: siskin, a Python that has DeepSparse, programs of candle. None where there is no
    program for it."""
    if who.library == tables.SISKIN:
        return Siskin(programs["siskin"], model, who.flags)
    if who.library == tables.CANDLE:
        program = programs[who.form]
        return program and Served([program.resolve(), model])
    python = programs["deepsparse"] if who.library == tables.DEEPSPARSE else sys.executable
    return Served([python, "-m", "encoder_libraries.serve", who.library, who.form, model, folder])
