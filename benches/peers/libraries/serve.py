"""A library in a process of its own: requests are lines of JSON on standard input, answers lines of JSON on standard output.

    python -m libraries.serve NAME THREADS

{"solve": folder} prepares a problem and says which forms there are, those that answer wrongly, and the time of each; {"ms": ..}
measures its fastest forms once more: {"us": least time, "form": which}. A file of a library has

    version()         a line
    forms(problem, threads)    yields Forms, or raises Lacks
"""

import importlib
import json
import os
import sys

from libraries.form import Lacks
from problem import Problem

# Forms that are so much slower than the fastest when the problem is prepared are left out.
SLOWER = 1.15


def solve(library, folder, threads):
    problem, forms, said, failed = Problem(folder), [], {}, []
    try:
        for form in library.forms(problem, threads):
            form.call.once()
            if wrong := problem.wrong(form.answer()):
                failed.append(f"{form.name}: {wrong}")
                continue
            said[form.name] = form.call.least(8)
            forms.append(form)
    except Lacks as lacks:
        failed.append(str(lacks))
    best = min(said.values(), default=0)
    return [form for form in forms if said[form.name] <= SLOWER * best], {"forms": said, "failed": failed}


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    # What libraries print is not for whoever reads the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        library = importlib.import_module(f"libraries.{name}")
        answer = {"version": library.version()}
    except (ImportError, OSError) as why:
        library, answer = None, {"missing": str(why)}
    print(json.dumps(answer), file=out, flush=True)
    kept = []
    for line in sys.stdin if library else ():
        request = json.loads(line)
        if "solve" in request:
            kept.clear()
            kept, answer = solve(library, request["solve"], threads)
        else:
            us, form = min((form.call.least(request["ms"] / len(kept)), form.name) for form in kept)
            answer = {"us": us, "form": form}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
