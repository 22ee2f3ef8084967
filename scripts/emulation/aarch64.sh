#!/usr/bin/env bash
# Builds the library's tests for aarch64 and runs them under qemu, once a CPU model. Installs a cross compiler and
# qemu from Debian's packages, and std for aarch64 by rustup; where rustup cannot, a compiler with std for both is
# unpacked from Debian's packages into ~/.cache/siskin (600 MB), beside the machine's own, which is left alone.
#
#   scripts/emulation/aarch64.sh [MODEL...]
#
# Some 15 times slower than the machine: PROPTEST_CASES is 32 and SISKIN_TEST_CASES 0.1 unless
# they are set.
set -euo pipefail
here=$(cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../.."
. "$here/common.sh"

# What must be detected on each, and what runs there: `all` tests, or the `sweep` over the kernels with the differential and
# golden tests, guard pages and the digests. SVE's vectors have 128, 256 or 512 bits.
declare -A tiers=(
    [cortex-a53]=neon [cortex-a76]=neon-dot [neoverse-n1]=neon-dot [a64fx]=sve [max,sve=off]=neon-bf16
    [max,sve-default-vector-length=16]=neon-bf16 [max,sve-default-vector-length=32]=neon-bf16
    [max,sve-default-vector-length=64]=neon-bf16
)
declare -A runs=([cortex-a76]=all)
# A tier that is not the best of its CPU, but must have run.
declare -A also=([a64fx]=neon)
for bytes in 16 32 64; do also[max,sve-default-vector-length=$bytes]=sve,neon-i8mm; done
models=("$@")
[ ${#models[@]} -gt 0 ] || models=(cortex-a53 cortex-a76 a64fx max,sve-default-vector-length={16,32,64})

target=aarch64-unknown-linux-gnu
home=$CACHE/aarch64
mkdir -p "$home"
has_std() {
    local dir
    dir=$("$1" --print target-libdir --target $target 2>>"$LOG") && compgen -G "$dir/libtest-*.rlib" >/dev/null
}

[ "$(uname -s)" = Linux ] || not_run "aarch64: this is not Linux"
command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null &&
    [ -e /usr/aarch64-linux-gnu/include/stdio.h ] ||
    apt_install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user ||
    not_run "aarch64: no cross compiler or no qemu, and they cannot be installed"

# Debian's compiler, with std for amd64 and arm64: by a view of the package lists for both architectures that has
# folders of its own, so that what dpkg knows and what is installed stay as they are.
debian_rust() {
    local view=$home/view package std llvm
    command -v apt-get >/dev/null || return
    rm -rf "$home/root" "$home/bin" "$view"
    mkdir -p "$home/root" "$home/bin" "$view/lists/partial" "$view/cache/archives/partial" "$view/packages"
    : >"$view/status"
    cat >"$view/apt.conf" <<CONF
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Dir::State "$view";
Dir::State::Lists "$view/lists";
Dir::State::Status "$view/status";
Dir::Cache "$view/cache";
CONF
    export APT_CONFIG=$view/apt.conf
    apt-get -q update || return
    # These names carry a version that moves, so they are read off.
    std=$(apt-cache show libstd-rust-web-dev:amd64 | sed -n 's/^Depends: .*\(libstd-rust-web-[0-9.]*\) .*/\1/p' | head -n 1)
    llvm=$(apt-cache show "$std:amd64" | sed -n 's/^Depends: .*\(libllvm[0-9]*\).*/\1/p' | head -n 1)
    (cd "$view/packages" &&
        apt-get -q download {rustc-web,libstd-rust-web-dev,"$std","$llvm"}:amd64 libstd-rust-web-dev:arm64) || return
    unset APT_CONFIG
    for package in "$view"/packages/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$home/root" --wildcards --exclude './usr/share/*' './usr/*' || return
    done
    for package in rustc rustdoc; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' \
            "$home/root/usr/lib/x86_64-linux-gnu" "$home/root/usr/bin/$package" >"$home/bin/$package"
        chmod +x "$home/bin/$package"
    done
    rm -rf "$view"
}

if [ "${SISKIN_AARCH64_RUST-}" != debian ]; then
    has_std rustc || { command -v rustup && timeout 300 rustup target add $target; } >>"$LOG" 2>&1 </dev/null || true
fi
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target_dir
if [ "${SISKIN_AARCH64_RUST-}" = debian ] || ! has_std rustc; then
    echo "rustup has no std for $target here: taking Debian's compiler"
    has_std "$home/bin/rustc" || debian_rust >>"$LOG" 2>&1 || true
    has_std "$home/bin/rustc" || not_run "aarch64: no std for $target, neither from rustup nor from Debian"
    export RUSTC=$home/bin/rustc RUSTDOC=$home/bin/rustdoc
    export CARGO_TARGET_DIR=$target_dir/aarch64-debian # two compilers must not share a folder
fi
flock -u 9

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export PROPTEST_CASES=${PROPTEST_CASES:-32} SISKIN_TEST_CASES=${SISKIN_TEST_CASES:-0.1}
# The compiler's word for the C of SVE is an error.
export CI=true
cargo build --package siskin --target $target --release
test=(cargo test --package siskin --target $target)
"${test[@]}" --tests --no-run
# What does not depend on the tier and takes minutes here.
slow=(--skip allocate --skip need_no_more --skip long_contexts --skip sums_of_many_keys --skip largest_k --skip every_pair)
chosen=("${SKIP_CHILDREN[@]}" "${slow[@]}")
sweep=(kernels/{bytes,attention_tiles,attention_decode,attention_passes,codes,float,float_sparse,oracle,digests,guard,norm,tiers}
    attention/{bytes,golden} linear/float_properties ecoformer/{original,codes})
test_on() {
    export SISKIN_REQUIRE_ISA=${also[$1]-}
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $1 -L /usr/aarch64-linux-gnu"
    if [ "${runs[$1]-sweep}" = all ]; then
        "${test[@]}" --tests --no-fail-fast -- "${chosen[@]}"
    else
        run_modules 86400 "${sweep[@]}"
    fi
}
each_model tiers "${models[@]}"
# Cycles are of models of cores, so nothing is run.
python3 scripts/arm_model.py --check
