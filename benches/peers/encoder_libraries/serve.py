"""A library that runs an encoder, in a process of its own: requests are lines of JSON on standard input, answers lines of JSON on standard
output.

    python -m encoder_libraries.serve LIBRARY FORM MODEL FOLDER

MODEL is the folder of a checkpoint and FOLDER has what encoder_export.py made of it. The first line says the version, or what is missing.
{"vectors": texts} asks for the vectors of texts, lists of tokens, each in a call of its own; {"time": texts, "ms": ..} for the least and
the median time of calls in microseconds, on texts of one length. A file of a library has

    version()                      a line
    Encoder(form, model, folder)   with call(ids, often), which takes an array of tokens [texts, tokens] and returns a function that takes
                                   nothing and returns their vectors; what is called often is worth being compiled for its shape
"""

import importlib
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from process import channel

# Calls of a turn that do not count, and those that there are at least, however long they take.
WARMING, FEWEST = 2, 3


def times(call, ms):
    """The least and the median time of calls in microseconds."""
    for _ in range(WARMING):
        call()
    found, end = [], time.perf_counter() + ms / 1000
    while len(found) < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        found.append((time.perf_counter() - start) * 1e6)
    return {"us_min": min(found), "us_p50": statistics.median(found)}


def answer(encoder, request):
    if "vectors" in request:
        texts = [np.array([text], np.int64) for text in request["vectors"]]
        return {"vectors": [np.asarray(encoder.call(text, often=False)())[0].tolist() for text in texts]}
    return times(encoder.call(np.array(request["time"], np.int64), often=True), request["ms"])


def main():
    library, form, model, folder = sys.argv[1:]
    say = channel()
    try:
        module = importlib.import_module(f"encoder_libraries.{library}")
        encoder = module.Encoder(form, Path(model), Path(folder))
        say({"version": module.version()})
    except ImportError as why:
        say({"missing": str(why)})
        return
    for line in sys.stdin:
        say(answer(encoder, json.loads(line)))


if __name__ == "__main__":
    main()
