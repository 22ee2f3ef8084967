# Sourced by the scripts beside it.

CACHE=${SISKIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/siskin}
LOG=$CACHE/setup.log
mkdir -p "$CACHE"
exec 9>"$CACHE/.lock"
flock 9 # one set-up at a time on a machine
: >"$LOG"

# What cannot be had ends the script, loudly and without an error: the rest of a run goes on.
not_run() {
    tail -n 5 "$LOG" | sed -E 's#[a-z]+://[^ ]+#(address)#g' >&2
    printf 'NOT RUN: %s\n' "$*"
    exit 0
}

# apt_install PACKAGE...: nothing where all are there.
apt_install() {
    dpkg -s "$@" >/dev/null 2>&1 && return
    command -v apt-get >/dev/null || return
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    local get=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600)
    echo "installing $*"
    "${get[@]}" install -y --no-install-recommends "$@" >>"$LOG" 2>&1 </dev/null || {
        "${get[@]}" update && "${get[@]}" install -y --no-install-recommends "$@"
    } >>"$LOG" 2>&1 </dev/null
}

# Tests that start a process of their own, which no emulator can: children, another thread count, a compiler.
SKIP_CHILDREN=(--skip a_step_outside_kills --skip one_thread_by_the_environment
    --skip what_does_not_fit_memory)

# run_modules SECONDS BINARY/MODULE...: the tests of each module, by the command in the array `test`, with the arguments in
# the array `chosen`. Each module has a process of its own: an emulator does not give memory back, and dies of what one test
# does. After so many seconds for all of them the status is 124, unless something had failed.
run_modules() {
    local end=$((SECONDS + $1)) failed=0 left module status
    shift
    for module in "$@"; do
        # A filter that meets nothing would pass.
        [ -e "tests/$module.rs" ] || { echo "there is no tests/$module.rs"; return 1; }
        left=$((end - SECONDS)) status=124
        if [ $left -gt 0 ]; then
            status=0
            timeout $left "${test[@]}" --test "${module%/*}" -- "${module#*/}::" "${chosen[@]}" || status=$?
        fi
        [ $status != 124 ] || return $((failed ? failed : 124))
        [ $status = 0 ] || failed=$status
    done
    return $failed
}

# each_model TIER-TABLE MODEL...: runs the function `test_on` once a model, with SISKIN_EXPECT_ISA from the table.
each_model() {
    local -n tier_of=$1
    shift
    local failed=() start
    for model in "$@"; do
        start=$SECONDS
        echo
        echo "--- $model: must detect ${tier_of[$model]:-(not known: add it to the table)}"
        SISKIN_EXPECT_ISA=${tier_of[$model]:?} test_on "$model" || failed+=("$model")
        echo "--- $model: $((SECONDS - start)) s"
    done
    [ ${#failed[@]} -eq 0 ] || { echo "FAILED on ${failed[*]}"; exit 1; }
    echo "passed on $*"
}
