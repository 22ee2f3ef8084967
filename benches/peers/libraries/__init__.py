"""Other libraries, one a file; serve.py says what each file must have."""

import sys
from pathlib import Path

from turns import Library

# What the process of a library needs; {lib} is the folder of shared libraries of the virtual environment.
ENVIRONMENTS = {
    "onednn": {"LD_LIBRARY_PATH": "{lib}", "OCL_ICD_FILENAMES": "{lib}/libintelocl.so"},
    "mkl": {"LD_LIBRARY_PATH": "{lib}", "MKL_THREADING_LAYER": "INTEL"},
    "openvino": {},
    "onnxruntime": {},
    "numpy": {},
    "scipy": {},
    "torch": {},
}
NAMES = list(ENVIRONMENTS)


def started(names, threads, libdnnls):
    """The libraries of these names, separated by commas, or all; oneDNN once for each libdnnl: its own package's, these, and the one
    in PaddlePaddle's package."""
    chosen = names.split(",") if names else NAMES
    if unknown := set(chosen) - set(NAMES):
        raise SystemExit(f"there is no libraries/{min(unknown)}.py: there are {', '.join(NAMES)}")
    for name in chosen:
        yield Library(name, threads, ENVIRONMENTS[name])
        if name == "onednn":
            paddle = Path(sys.prefix).glob("lib/python*/site-packages/paddle/libs/libdnnl.so.3")
            for path in [*map(Path, libdnnls), *paddle]:
                path = path.resolve()
                own = {"PEERS_LIBDNNL": str(path), "LD_LIBRARY_PATH": f"{path.parent}:{{lib}}"}
                yield Library(name, threads, ENVIRONMENTS[name] | own)
