"""A library in a process of its own: requests are lines of JSON on standard input, answers lines of JSON on standard output.

    python -m libraries.serve NAME THREADS

{"solve": folder} prepares a problem and says which forms there are and the time of each, and what failed; {"ms": ..} measures its
fastest forms once more: {"us": least time, "form": which}; {"done": true} ends it. Each problem has a child of this process, so
that what libraries allocate for one is gone with it. A file of a library has

    version()                  a line
    forms(problem, threads)    yields Forms, or raises Lacks
"""

import importlib
import json
import os
import sys

from libraries.form import Lacks
from problem import Problem
from process import channel

# Forms that are so much slower than the fastest when the problem is prepared are left out.
SLOWER = 1.15


def solve(library, folder, threads):
    problem, forms, said, failed = Problem(folder), [], {}, []
    try:
        for form in library.forms(problem, threads):
            form.call.once()
            if wrong := problem.wrong(form.answer(), form.rough):
                failed.append(f"{form.name}: {wrong}")
                continue
            said[form.name] = form.call.least(8)
            forms.append(form)
    except Lacks as lacks:
        failed.append(str(lacks))
    best = min(said.values(), default=0)
    return [form for form in forms if said[form.name] <= SLOWER * best], {"forms": said, "failed": failed}


def serve(library, folder, threads, say):
    """A problem, until it is done."""
    forms, answer = solve(library, folder, threads)
    say(answer)
    while "ms" in (request := json.loads(sys.stdin.readline() or "{}")):
        us, form = min((form.call.least(request["ms"] / len(forms)), form.name) for form in forms)
        say({"us": us, "form": form})


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    say = channel()
    try:
        library = importlib.import_module(f"libraries.{name}")
        say({"version": library.version()})
    except (ImportError, OSError) as why:
        say({"missing": str(why)})
        return
    # The one who asks waits for each answer, so parent and child never read ahead of each other.
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            serve(library, json.loads(line)["solve"], threads, say)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            say({"missing": f"it ended with status {status}"})


if __name__ == "__main__":
    main()
