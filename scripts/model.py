"""What the reports of hot loops share (scripts/arm_model.py, scripts/x86_model.py): the assembly of the library, its functions and
innermost loops, and what llvm-mca says of them.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Of LLVM, the best first.
VERSIONS = ("22", "21", "20", "19")
TURNS = 200

# Cycles of one turn of a loop in the long run, and of each resource of the core how many of them it is busy.
Prediction = namedtuple("Prediction", "cycles busy")
# What llvm-mca calls operations on their way into the core.
FRONT = "dispatch"


class Missing(Exception):
    """There is no llvm-mca."""


class Mca:
    """llvm-mca of one of these versions: $LLVM_MCA, one on the path, or Debian's, unpacked into ~/.cache/siskin."""

    def __init__(self, versions=VERSIONS):
        self.environment = dict(os.environ)
        names = [os.environ.get("LLVM_MCA"), *(shutil.which(f"llvm-mca-{version}") for version in versions)]
        self.command = next(filter(None, names), None) or self.unpacked(versions)
        said = subprocess.run([self.command, "--version"], capture_output=True, text=True, env=self.environment).stdout
        found = re.search(r"LLVM version (\d+)", said)
        self.version = found.group(1) if found else "of an unknown version"

    def unpacked(self, versions):
        home = Path(os.environ.get("SISKIN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siskin")
        home /= "llvm-mca"
        tools = {version: home / f"usr/lib/llvm-{version}/bin/llvm-mca" for version in versions}
        if not any(tool.exists() for tool in tools.values()):
            fetch(home, versions)
        version, tool = next((v, tool) for v, tool in tools.items() if tool.exists())
        self.environment["LD_LIBRARY_PATH"] = f"{home}/usr/lib/x86_64-linux-gnu:{home}/usr/lib/llvm-{version}/lib"
        return str(tool)

    @cache
    def predict(self, body, arguments):
        """Of one turn of a loop whose lines are `body`."""
        command = [self.command, *arguments, f"-iterations={TURNS}"]
        done = subprocess.run(command, input="\n".join(body) + "\n", capture_output=True, text=True, env=self.environment)
        found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
        if not found:
            sys.exit(f"llvm-mca {' '.join(arguments)}: {done.stderr}")
        return Prediction(int(found.group(1)) / TURNS, busy(done.stdout))

    def cycles(self, body, arguments):
        return self.predict(tuple(body), tuple(arguments)).cycles


def fetch(home, versions):
    """Unpacks what Debian has of the best version that it has."""
    packages = home / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    try:
        for version in versions:
            wanted = ["apt-get", "-q", "download", f"llvm-{version}", f"libllvm{version}", "libpfm4"]
            if shutil.which("apt-get") and subprocess.run(wanted, cwd=packages, capture_output=True).returncode == 0:
                break
        else:
            raise Missing(f"no llvm-mca of LLVM {' or '.join(versions)}: set LLVM_MCA (on Debian, apt-get update first)")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, home], check=True)
    finally:
        shutil.rmtree(packages)


def busy(said):
    """Cycles of a turn by resource. Of a resource with several parts, such as loads, the mean of its parts."""
    names = dict(re.findall(r"^\[(\d+(?:\.\d+)?)\]\s+- (\S+)", said, re.MULTILINE))
    table = said.partition("Resource pressure per iteration:")[2].strip().splitlines()
    parts = {}
    for number, value in zip(re.findall(r"\[(\S+?)\]", table[0]), table[1].split()):
        parts.setdefault(names[number], []).append(0 if value == "-" else float(value))
    number = lambda words: int(re.search(rf"{words}:\s+(\d+)", said).group(1))
    front = number("Total uOps") / TURNS / number("Dispatch Width")
    return {FRONT: front, **{name: sum(of) / len(of) for name, of in parts.items()}}


def rust_assembly(target_dir, *more):
    """Of a release build of the library, as users make it. The flags are those of tests/codegen.rs: in its folder nothing is built
    twice."""
    unset = ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET")
    subprocess.run(
        ["cargo", "rustc", "--release", "--lib", "--quiet", *more, "--target-dir", target_dir, "--",
         "--emit", "asm", "-C", "codegen-units=1", "-C", "debuginfo=0", "-C", "symbol-mangling-version=v0"],
        cwd=ROOT, check=True, env={k: v for k, v in os.environ.items() if k not in unset})
    files = Path(target_dir).glob("**/release/deps/siskin-*.s")
    return max(files, key=lambda f: f.stat().st_mtime).read_text()


def target_dir():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def symbol(row, part, *names, numbers=()):
    """Parts of the symbol of a kernel in the table: lengths and names, then constants, of which one that was there before is a reference."""
    constants = "".join("KB " if n in numbers[:i] else f"Kj{n:x}_" for i, n in enumerate(numbers)).split()
    return [f"4rows{len(row)}{row}", *(f"{len(name)}{name}" for name in (part, *names)), *constants]


def function(lines, parts, name):
    """The lines of the function whose symbol has all these parts, in this order: what `name` is made of."""
    pattern = re.compile(r"^\w*" + ".*".join(map(re.escape, parts)) + ".*:$")
    start = next((i for i, line in enumerate(lines) if pattern.match(line)), None)
    if start is None:
        sys.exit(f"{name}: no function {parts}")
    end = next(i for i in range(start, len(lines)) if lines[i].strip().startswith((".Lfunc_end", ".size")))
    body = [line.strip() for line in lines[start + 1:end]]
    return [line for line in body if line and (line.startswith(".L") or line[0] not in "./#")]


def innermost(body, jump):
    """The loops without a loop in them. `jump` matches a jump, its group the label."""
    labels = {line[:-1]: i for i, line in enumerate(body) if line.endswith(":")}
    loops = []
    for i, line in enumerate(body):
        found = re.match(jump, line)
        if found and labels.get(found.group(1), i) < i:
            loops.append((labels[found.group(1)], i))
    inner = [(s, e) for s, e in loops if not any((a, b) != (s, e) and a >= s and b <= e for a, b in loops)]
    return [[line for line in body[s:e + 1] if not line.endswith(":")] for s, e in inner]


def hottest(loops, product, name):
    """The loop with the most products; of loops with as many (with and without prefetches) the shorter."""
    count = lambda body: sum(bool(re.match(f"({product})\\s", line)) for line in body)
    if not any(map(count, loops)):
        sys.exit(f"{name}: no loop with {product}")
    body = min(loops, key=lambda body: (-count(body), len(body)))
    return body, count(body)


def missing(what, why):
    """Says what is not checked for lack of llvm-mca. A report cannot be written without."""
    print(f"NOT RUN: {what}: {why}")
    if "--check" not in sys.argv:
        sys.exit(1)


def finish(report, text, rows, broken):
    """Writes the report, or with --check compares it, if there is one; fails where a promise is broken."""
    if "--check" not in sys.argv:
        report.write_text(text, encoding="utf-8")
    elif report and report.read_text(encoding="utf-8") != text:
        print(f"{report.relative_to(ROOT)} is not what the script writes: another compiler or llvm-mca, or it is out of date")
    print("\n".join(rows + broken))
    sys.exit(bool(broken))
