#!/bin/bash
# Installs into a temporary prefix and builds the example program against what was installed, through
# pkg-config, with the static and with the shared library, and checks the header as C++; runs
# both on a small release and compares what they print.
#   test_install.sh BUILD_DIR
set -euo pipefail

build=$1
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d /tmp/aisle-install-XXXXXX)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "test_install: $*" >&2
    exit 1
}

DESTDIR="" cmake --install "$build" --prefix "$work/prefix" >"$work/install.log" 2>&1 ||
    fail "cmake --install: $(tail -3 "$work/install.log")"
aisle=$work/prefix/bin/aisle
pc=$(find "$work/prefix" -name aisle.pc)
library_dir=$(dirname "$(find "$work/prefix" -name libaisle.a)")
[[ -n $pc && -x $aisle ]] || fail "aisle.pc or aisle is missing"
[[ $(find "$work/prefix/include" -type f -printf '%f\n') == aisle.h ]] ||
    fail "other headers than aisle.h were installed"

export PKG_CONFIG_PATH=${pc%/*}
read -ra cflags < <(pkg-config --cflags aisle)
read -ra shared < <(pkg-config --libs aisle)
read -ra static < <(pkg-config --static --libs aisle)

example=$source_dir/tests/example/recommend_example.c
warnings=(-std=c11 -Wall -Wextra -Wpedantic -Werror)
cc "${warnings[@]}" "${cflags[@]}" "$example" "${shared[@]}" -o "$work/shared"
# A linker prefers the shared library of a folder: the static one first, by its path.
cc "${warnings[@]}" "${cflags[@]}" "$example" "${static[@]/#-laisle/$library_dir/libaisle.a}" \
    -o "$work/static"
c++ -x c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only "${cflags[@]}" \
    -include aisle.h /dev/null

export LD_LIBRARY_PATH=$library_dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
[[ $(ldd "$work/shared") == *libaisle.so* ]] || fail "the shared example does not use libaisle.so"
[[ $(ldd "$work/static") != *libaisle.so* ]] || fail "the static example uses libaisle.so"
# The interface is what aisle.h declares, and nothing of ours beside it (names with a dot are the
# compiler's, of OpenMP's critical sections).
exported=$(nm -D --defined-only "$library_dir/libaisle.so" | awk '$3 !~ /^\./ {print $3}' | sort)
declared=$(grep -ohE 'aisle_[a-z_]+\(' "$source_dir/src/aisle.h" | tr -d '(' | sort -u)
[[ $exported == "$declared" ]] ||
    fail "exported names differ from aisle.h: $(diff <(echo "$exported") <(echo "$declared"))"

{
    "$aisle" synth --out "$work/shop" --items 200 --users 300 --events 5000
    "$aisle" train --items "$work/shop/items.csv" --events "$work/shop/events.csv" \
        --out "$work/model" --epochs 2 --dim 16 --threads 1
    "$aisle" build --items "$work/shop/items.csv" --model-dir "$work/model" \
        --releases "$work/releases"
} >"$work/release.log" 2>&1 || fail "making a release: $(tail -3 "$work/release.log")"

mapfile -t ids < <(awk -F, 'NR > 1 && NR <= 4 {print $1}' "$work/shop/items.csv")
"$work/shared" "$work/releases/channels/stable" "${ids[@]}" >"$work/shared.txt"
"$work/static" "$work/releases/channels/stable" "${ids[@]}" >"$work/static.txt"
cmp "$work/shared.txt" "$work/static.txt" || fail "static and shared library answer differently"
[[ $(wc -l <"$work/shared.txt") -eq 5 ]] || fail "not 5 items: $(cat "$work/shared.txt")"
grep -q $'\tvector\t' "$work/shared.txt" || fail "no item came by its vector"
if "$work/shared" "$work/nowhere" >/dev/null 2>"$work/error.txt"; then
    fail "a release that is not there was opened"
fi
grep -q nowhere "$work/error.txt" || fail "the error does not name the folder"
echo "test_install: passed"
