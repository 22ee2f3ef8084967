"""Calls of libraries that are reached through Python alone. What the interpreter adds to each call is told in the name of a form,
for it counts where a call takes microseconds."""

import time
from functools import cache

from libraries.form import Form


class PythonCall:
    """A function of no arguments, called again and again."""

    def __init__(self, function):
        self.function = function
        self.answer = None

    def once(self):
        self.answer = self.function()

    def least(self, ms, count=3):
        function, clock, best, done = self.function, time.perf_counter_ns, 1 << 62, 0
        end = clock() + ms * 1e5
        while clock() < end:
            function()
        end = clock() + ms * 1e6
        while done < count or clock() < end:
            start = clock()
            function()
            best = min(best, clock() - start)
            done += 1
        return best / 1e3


@cache
def own(least_call):
    """What the interpreter and the library add to a call, in words: the microseconds of one that has next to nothing to compute."""
    return f"from Python, {PythonCall(least_call).least(5):.1f} us of it for the call"


def form(name, function, answer, least_call, rough=False):
    """`answer` makes the problem's answer of what the function returns; `least_call` is the same of a single element."""
    call = PythonCall(function)
    return Form(f"{name} ({own(least_call)})", call, lambda: answer(call.answer), rough)
