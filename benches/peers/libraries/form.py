"""One way in which a library solves a problem."""


class Form:
    """`call` has once() and least(ms); `answer()` is what the last call left, as the problem expects it."""

    def __init__(self, name, call, answer):
        self.name, self.call, self.answer = name, call, answer


class Lacks(Exception):
    """The library does not offer this."""
