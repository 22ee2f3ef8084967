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
def overhead():
    """Microseconds of a Python function that does nothing."""
    return PythonCall(lambda: None).least(5)


def form(name, function, answer):
    """`answer` makes the problem's answer of what the function returns."""
    call = PythonCall(function)
    return Form(f"{name}, from Python ({overhead():.2f} us of each call are its own)", call, lambda: answer(call.answer))
