#!/bin/sh
# Plants each bug into a copy of the project and requires that `bkss sim` finds it, by the invariant
# that bugs.txt names for its seed; without the bugs all of these seeds pass. Arguments: names of
# bugs, all by default. Builds in the test profile, a minute per bug, in PLANTED_TARGET if that is
# set; without its assertions, as the release is: it is the invariants that have to find the bug.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false
export CARGO_TARGET_DIR="${PLANTED_TARGET:-$copy/target}"
git -C "$root" archive HEAD | tar -x -C "$copy"
failed=0

build() {
    cargo build --quiet --locked --manifest-path "$copy/Cargo.toml" -p bkss
}

# Runs a seed; $1: what goes before it, $2: the expected invariant or "nothing", $3: options.
look() {
    # A seed that fails ends with 1: it is the output that counts.
    shown=$("$CARGO_TARGET_DIR/debug/bkss" sim $3 --json 2>/dev/null) || true
    case $shown in *'"worlds":1'*) ;; *) shown='"invariant":"no-world"' ;; esac
    found=$(printf '%s' "$shown" | sed -n 's/.*"invariant":"\([a-z-]*\)".*/\1/p')
    echo "$1: expected $2, found ${found:-nothing} with bkss sim $3"
    [ "${found:-nothing}" = "$2" ] || failed=1
}

# Calls $1 with each bug that was asked for: its name, its invariant, its options.
each() {
    work=$1
    shift
    while read -r name invariant options; do
        if [ $# -eq 0 ]; then
            $work "$name" "$invariant" "$options"
        else
            case " $* " in *" $name "*) $work "$name" "$invariant" "$options" ;; esac
        fi
    done < "$here/bugs.txt"
}

without() {
    look "without $1" nothing "$3"
}

with() {
    patch --quiet -d "$copy" -p1 < "$here/$1.patch"
    build < /dev/null
    look "with $1" "$2" "$3"
    patch --quiet -R -d "$copy" -p1 < "$here/$1.patch"
}

build
each without "$@"
each with "$@"
exit $failed
