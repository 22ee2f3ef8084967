#!/usr/bin/env bash
# Runs the library's tests on emulated x86-64 CPUs: tiers that this machine does not have, and CPUs that lack what it
# has. Sets up what it needs under ~/.cache/siskin (35 MB, from PyPI), once.
#
#   scripts/emulation/x86_64.sh [MODEL...] [-- BINARY/MODULE...]
#
# With modules (kernels/guard is the file tests/kernels/guard.rs), only their tests, on each model.
#
# The emulator has one thread and no child processes, so: no default features (no rayon), and tests with `threads` in
# their names are left out. It is some 50 times slower than the machine: PROPTEST_CASES is 16
# and SISKIN_TEST_CASES 0.02 unless they are set.
set -euo pipefail
here=$(cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../.."
. "$here/common.sh"

declare -A tiers=(
    [core2_penryn_t9600]=scalar # below AVX2
    [corei7_haswell_4770]=avx2
    [arrow_lake]=avx-vnni # no AVX-512
    [corei7_skylake_x]=avx512 # no VNNI
    [tigerlake]=avx512-vnni
    [sapphire_rapids]=avx512-vnni # and AVX-VNNI beside it
)
models=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do models+=("$1"); shift; done
shift $(($# > 0))
if [ ${#models[@]} -eq 0 ]; then
    models=(core2_penryn_t9600 corei7_haswell_4770 arrow_lake corei7_skylake_x)
    grep -q avx512_vnni /proc/cpuinfo || models+=(tigerlake)
fi

[ "$(uname -sm)" = "Linux x86_64" ] || not_run "emulated x86-64 CPUs: this is not Linux on x86-64"
home=$CACHE/x86-64
python=$home/venv/bin/python
mkdir -p "$home"
# Pinned, because cpu_model.c stands in for one of its symbols.
wheel=bochscpu-python==0.4.0
if ! "$python" -c 'import importlib.metadata as m; assert m.version("bochscpu-python") == "0.4.0"' 2>>"$LOG"; then
    echo "setting up $wheel"
    make_venv() { rm -rf "$home/venv"; python3 -m venv "$home/venv" >>"$LOG" 2>&1; }
    make_venv || { apt_install python3 python3-venv && make_venv; } || not_run "emulated x86-64 CPUs: no Python with venv"
    "$python" -m pip install -q --disable-pip-version-check --only-binary :all: "$wheel" >>"$LOG" 2>&1 ||
        not_run "emulated x86-64 CPUs: $wheel cannot be installed"
fi
cp "$here/x86run.py" "$home/"
${CC:-cc} -O2 -Wall -Wextra -shared -fPIC -o "$home/cpu_model.so" "$here/cpu_model.c" -ldl >>"$LOG" 2>&1 ||
    not_run "emulated x86-64 CPUs: no C compiler"

# The emulator is shown to tell the models apart: one AVX-VNNI instruction, then exit status 7.
try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
echo 'int main(void) { __asm__ volatile(".byte 0xc4,0xe2,0x75,0x50,0xd0" ::: "xmm2"); return 7; }' >"$try/vnni.c"
${CC:-cc} -O1 -static -no-pie -o "$try/vnni" "$try/vnni.c"
status() { local s=0; EMULATED_CPU=$1 "$python" "$home/x86run.py" "$try/vnni" >>"$LOG" 2>&1 || s=$?; echo $s; }
if [ "$(status arrow_lake)" != 7 ] || [ "$(status corei7_haswell_4770)" != 132 ]; then
    not_run "emulated x86-64 CPUs: the emulator does not work here"
fi
flock -u 9

target=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/emulated-x86-64
# Given by the variable that overrides all others; with --target it does not reach build scripts.
export RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static -C relocation-model=static"
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$python $home/x86run.py"
export PROPTEST_CASES=${PROPTEST_CASES:-16} SISKIN_TEST_CASES=${SISKIN_TEST_CASES:-0.02}
export SISKIN_TEST_NO_THREADS=1
test=(cargo test --package siskin --target "$target" --no-default-features)
# What takes minutes here and does not depend on the tier, or is covered by smaller cases of the same.
slow=(--skip long_contexts --skip keys_without_weight --skip sums_of_many_keys --skip allocate --skip need_no_more --skip largest_k --skip columns_beyond --skip many_columns --skip every_pair --skip activations_are_near)
# What is detected, and every kernel of the tier; of AVX-VNNI, which few machines of CI have, also what calls them.
sweep=(kernels/{bytes,attention_tiles,attention_decode,attention_passes,float,codes,ecoformer,digests,tiers})
declare -A more=([arrow_lake]="linear/layers attention/bytes kernels/guard kernels/oracle")
# Of tiers that every x86-64 machine of today runs itself: only that they are what is detected, and run without anything newer.
declare -A few=([core2_penryn_t9600]="kernels/tiers kernels/bytes" [corei7_haswell_4770]="kernels/tiers kernels/bytes")
asked=("$@")
chosen=(--test-threads=1 --skip threads "${SKIP_CHILDREN[@]}" "${slow[@]}")
"${test[@]}" --test kernels --test linear --test attention --no-run
test_on() {
    local status=0 modules
    # shellcheck disable=SC2206
    if [ ${#asked[@]} -gt 0 ]; then
        modules=("${asked[@]}")
    elif [ -n "${few[$1]-}" ]; then
        modules=(${few[$1]})
    else
        modules=("${sweep[@]}" ${more[$1]-})
    fi
    export EMULATED_CPU=$1
    run_modules 300 "${modules[@]}" || status=$?
    [ $status = 124 ] || return $status
    echo "NOT RUN: the rest of the tests on $1: over 300 s"
}
each_model tiers "${models[@]}"
