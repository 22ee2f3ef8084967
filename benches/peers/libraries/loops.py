"""The loops of loops.c: built once with the C compiler that the linker of every Rust toolchain needs anyway."""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from ctypes import c_double, c_int32, c_int64, c_long, c_void_p
from pathlib import Path

SOURCE = Path(__file__).with_name("loops.c")


def built():
    name = f"peers-loops-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    path = Path(sys.prefix) / name
    if not path.exists():
        # Workers may build at the same time: each makes its own, and the last one stays.
        flags = ["-O2", "-ffp-contract=fast", "-shared", "-fPIC"]
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".so", delete=False) as made:
            subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", made.name, SOURCE], check=True)
        os.replace(made.name, path)
    return ctypes.CDLL(str(path))


LIBRARY = built()
LIBRARY.least.restype = c_double
LIBRARY.least.argtypes = [c_void_p, c_void_p, c_double, c_long]


def structure(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": [(field, kind) for kind, fields_ in fields for field in fields_.split()]})


Several = structure("Several", (c_int64, "count"), (c_void_p, "run calls"))
OneDnn = structure("OneDnn", (c_void_p, "execute wait primitive stream args"), (c_int64, "count"))
One = structure("One", (c_void_p, "call argument"))
Gemm = structure(
    "Gemm", (c_void_p, "function"), (c_int32, "layout ta tb m n k"), (c_void_p, "a b c"), (c_int32, "lda ldb ldc unused")
)
Ort = structure("Ort", (c_void_p, "run session inputs values"), (c_int64, "count"), (c_void_p, "outputs output"))
Sparse = structure("Sparse", (c_void_p, "function matrix x y"), (c_int32, "layout columns ldx ldy"))


def address(function):
    return ctypes.cast(function, c_void_p).value


class Call:
    """A trampoline of loops.c and its structure. Keeps `held` alive, what the structure points to."""

    def __init__(self, trampoline, structure, *held):
        self.run, self.structure, self.held = getattr(LIBRARY, trampoline), structure, held

    def once(self):
        self.run(ctypes.byref(self.structure))

    def least(self, ms, count=3):
        return LIBRARY.least(address(self.run), ctypes.addressof(self.structure), ms, count)


def several(calls):
    """One call of a few, one after another."""
    run = (c_void_p * len(calls))(*(address(call.run) for call in calls))
    all_of = (c_void_p * len(calls))(*(ctypes.addressof(call.structure) for call in calls))
    held = Several(len(calls), ctypes.cast(run, c_void_p), ctypes.cast(all_of, c_void_p))
    return Call("several", held, run, all_of, calls)
