"""Whether the machine is quiet: whether a loop of multiplications takes as long as it did when it was fastest. Neighbours on the same
core, a lower clock and other processes all make it slower, and calls that are measured meanwhile are slower by another factor each."""

import statistics
import time
from ctypes import c_double

# How much slower a quiet machine may be, and how many seconds a row waits for one in all.
NEAR, PATIENCE = 1.01, 10


class Quiet:
    def __init__(self, best=float("inf")):
        # Not before it is needed: it is built by a C compiler.
        from libraries.loops import LIBRARY

        LIBRARY.yardstick.restype = c_double
        self.yardstick, self.best, self.left = LIBRARY.yardstick, best, 0.0

    def is_now(self):
        # The first ones find a clock that has not adapted to wide registers.
        times = [self.yardstick() for _ in range(40)][20:]
        self.best = min(self.best, *times)
        return statistics.median(times) <= NEAR * self.best

    def new_row(self):
        self.left = PATIENCE

    def waits(self):
        """Whether it has become quiet, while there is patience left."""
        while not (quiet := self.is_now()) and self.left > 0:
            time.sleep(0.01)
            self.left -= 0.01
        return quiet
