"""Readers of the documents in unpacked Debian packages: each yields documents, as a name and a list of paragraphs.

A package that is not there gives no documents.
"""

import gzip
import html
import re
import subprocess
import zlib
from pathlib import Path
from typing import Iterator

Documents = Iterator[tuple[str, list[str]]]


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", errors="replace")


def files(root: Path, pattern: str) -> list[Path]:
    return sorted(p for p in root.glob(pattern) if p.is_file() and not p.is_symlink())


def blocks(text: str) -> list[str]:
    """What blank lines divide."""
    return [b.strip("\n") for b in re.split(r"\n\s*\n", text) if b.strip()]


def html_paragraphs(text: str) -> list[str]:
    return [html.unescape(re.sub(r"<[^>]+>", "", p)) for p in re.findall(r"<p\b[^>]*>(.*?)</p>", text, re.DOTALL)]


def pod_paragraphs(text: str) -> list[str]:
    """Paragraphs of Perl's documentation without commands, code and marks, such as C<..> and L<text|address>."""
    paragraphs = [b for b in blocks(text) if b[0] not in "= \t\n"]
    for _ in range(3):  # marks are nested
        paragraphs = [re.sub(r"[A-Z]<([^<>|]*)(?:\|[^<>]*)?>", r"\1", p) for p in paragraphs]
    return paragraphs


def rst_paragraphs(text: str) -> list[str]:
    """Paragraphs and items of reStructuredText without directives, headings, code and marks."""
    paragraphs, code = [], False
    for block in blocks(text):
        lines = block.strip("\n").split("\n")
        indented = lines[0][0] == " "
        code = code and indented
        if code or lines[0].lstrip().startswith((".. ", ">>>")) or re.fullmatch(r"[=\-~^\"'*#+.]{3,}", lines[-1].strip()):
            code = code or lines[0].lstrip().startswith(".. code")
            continue
        code = block.rstrip().endswith("::")
        block = re.sub(r":[\w:]+:`[!~]?([^`<]*?)(?:\s*<[^`>]*>)?`", r"\1", re.sub(r"^\s*(?:[*-]|\d+\.) ", "", block))
        block = re.sub(r"`+([^`<]*?)(?:\s*<[^`>]*>)?`+_*", r"\1", block)
        paragraphs.append(re.sub(r"\*+(\S[^*]*)\*+", r"\1", block).replace("::", ":"))
    return paragraphs


def roff_paragraphs(text: str) -> list[str]:
    """Paragraphs of a manual page in troff's man macros, without headings, examples and fonts."""
    paragraphs, lines, shown, tag = [], [], True, False
    for line in text.split("\n"):
        macro = re.match(r"[.'](\w+)\s*(.*)", line)
        name, rest = macro.groups() if macro else ("", line)
        if name in ("EX", "nf", "TS"):
            shown = False
        elif name in ("EE", "fi", "TE"):
            shown = True
        elif name in ("PP", "P", "LP", "TP", "IP", "SH", "SS", "TQ", "RS", "RE") or (not name and not line.strip()):
            paragraphs.append(" ".join(lines))
            lines, tag = [], name == "TP"
        elif shown and tag and name != "PD":
            tag = False  # the line after TP is a label
        elif shown and name in ("B", "I", "R", "SM"):
            lines.append(rest.replace('"', ""))
        elif shown and name in ("BR", "IR", "RB", "RI", "BI", "IB"):
            lines.append("".join(a.strip('"') for a in re.findall(r'"[^"]*"|\S+', rest)))
        elif shown and not name and not line.startswith((".", "'")):
            lines.append(line)
    paragraphs.append(" ".join(lines))
    escapes = [(r"\\f(?:\(..|\[[^]]*\]|.)", ""), (r"\\(?:\(aq|\[aq\])", "'"), (r"\\(?:\([lr]q|\[[lr]q\])", '"'), (r"\\-", "-")]
    for pattern, plain in escapes + [(r"\\e", r"\\"), (r"\\(?:\(..|\[[^]]*\]|[&|^/,:%])", ""), (r"\\[ ~]", " ")]:
        paragraphs = [re.sub(pattern, plain, p) for p in paragraphs]
    return [p for p in paragraphs if p.strip()]


def dictd_entries(text: str) -> Documents:
    """Entries of a dictionary: headwords begin a line, and what is said of them is indented."""
    for entry in re.split(r"\n(?=\S)", text):
        head, _, body = entry.partition("\n")
        if head and not head.startswith("00-database"):
            yield head, blocks(body)


def anarchism(root: Path) -> Documents:
    """An Anarchist FAQ, a book (GNU FDL)."""
    for path in files(root, "usr/share/doc/anarchism/html/*.html"):
        yield path.name, html_paragraphs(read(path))


def foldoc(root: Path) -> Documents:
    """The Free On-line Dictionary of Computing (GNU FDL)."""
    for path in files(root, "usr/share/dictd/foldoc.dict.dz"):
        for head, paragraphs in dictd_entries(read(path)):
            paragraphs = [re.sub(r"[{}]|<[a-z, ]+>|\(\d{4}-\d\d-\d\d\)", "", p) for p in paragraphs]
            yield head, paragraphs


def gcide(root: Path) -> Documents:
    """GNU's dictionary, mostly Webster's of 1913 (GNU GPL); what it took from WordNet is left out."""
    for path in files(root, "usr/share/dictd/gcide.dict.dz"):
        for head, paragraphs in dictd_entries(read(path)):
            senses = [re.sub(r"\[[^]]*\]|[{}]|--[A-Z].*$", "", p, flags=re.DOTALL) for p in paragraphs if "WordNet" not in p]
            senses = [re.sub(r"^\s*(?:\d+\.|\([a-z]\)|\([A-Z]\w+\.\)|\s)*", "", p) for p in senses]
            yield head.split("\\")[0].strip(), [p for p in senses if not re.search(r"[][\\]|^Syn", p)]


def fortunes(root: Path) -> Documents:
    """Quotations and jokes of the program fortune, of many sources."""
    for path in files(root, "usr/share/games/fortunes/*"):
        if path.suffix not in (".dat", ".u8") and path.name not in ("ascii-art", "translate-me"):
            for number, text in enumerate(re.split(r"^%\s*$", read(path), flags=re.MULTILINE)):
                yield f"{path.name} {number}", [text]


def gnome_help(root: Path) -> Documents:
    """Help pages of GNOME (CC BY-SA)."""
    for path in files(root, "usr/share/help/C/*/*.page"):
        yield path.name, html_paragraphs(read(path))


def manuals(root: Path) -> Documents:
    """The Linux manual pages (several free licences)."""
    for path in files(root, "usr/share/man/man[1-8]/*.gz"):
        yield path.name, roff_paragraphs(read(path))


def packages(root: Path) -> Documents:
    """One-line descriptions of Debian's packages, out of apt's lists (the licences of the packages)."""
    listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False).stdout
    for name, description in re.findall(r"^Package: (\S+)\n(?:.+\n)*?Description: (.*)", listed, flags=re.MULTILINE):
        if not description.startswith(("dummy", "transitional")):
            yield re.split(r"[-.\d]", name.removeprefix("lib"))[0], [description]


def perl(root: Path) -> Documents:
    """Perl's documentation but its questions (the licence of Perl)."""
    for path in files(root, "usr/share/perl/*/**/*.pod"):
        if not path.name.startswith("perlfaq"):
            yield path.name, pod_paragraphs(read(path))


def python(root: Path) -> Documents:
    """Python's documentation (PSF license)."""
    for path in files(root, "usr/share/doc/python3*/html/_sources/**/*.rst.txt"):
        yield path.name, rst_paragraphs(read(path))


def policy(root: Path) -> Documents:
    """The Debian Policy Manual (GNU GPL)."""
    for path in files(root, "usr/share/doc/debian-policy/policy.html/_sources/*.rst.txt"):
        yield path.name, rst_paragraphs(read(path))


def questions(root: Path) -> Documents:
    """Questions of the FAQs of Perl (the licence of Perl) and of Debian (GNU GPL)."""
    for path in files(root, "usr/share/perl/*/**/perlfaq*.pod"):
        asked = re.findall(r"^=head2 (.*(?:\n.+)*\?)$", read(path), flags=re.MULTILINE)
        yield from ((q, [re.sub(r"[A-Z]<([^<>]*)>", r"\1", q)]) for q in asked)
    for path in files(root, "usr/share/doc/debian/FAQ/debian-faq.en.txt.gz"):
        asked = re.findall(r"^\s*\d+\.[\d.]+ ([A-Z][^?]{8,200}\?)", read(path), flags=re.MULTILINE)
        yield from ((q, [q]) for q in asked)


def devil(root: Path) -> Documents:
    """Ambrose Bierce, The Devil's Dictionary, 1911 (public domain)."""
    for path in files(root, "usr/share/dictd/devil.dict.dz"):
        yield path.name, [re.sub(r"^[A-Z' -]+, [a-z.]+\s+", "", b) for b in blocks(read(path))[20:]]


def austen(root: Path) -> Documents:
    """Jane Austen's novels (public domain), out of a package of R: compressed chunks of serialized strings."""
    for path in files(root, "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"):
        data = path.read_bytes()
        while len(data) > 4:
            chunk = zlib.decompressobj()
            text = chunk.decompress(data[4:])
            data = chunk.unused_data
            lines = []
            for found in re.finditer(rb"\x00\x04\x00\x09(....)", text, flags=re.DOTALL):
                end = found.end() + int.from_bytes(found[1], "big")
                lines.append(text[found.end() : end].decode("utf-8", errors="replace"))
            yield f"{path.name} {len(data)}", blocks("\n".join(lines))
