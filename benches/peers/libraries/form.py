"""One way in which a library solves a problem."""


class Form:
    """`call` has once() and least(ms); `answer()` is what the last call left, as the problem expects it, but that a rough one
    was rounded to bfloat16."""

    def __init__(self, name, call, answer, rough=False):
        self.name, self.call, self.answer, self.rough = name, call, answer, rough


class Lacks(Exception):
    """The library does not offer this."""
