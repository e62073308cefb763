#!/bin/sh
# Generate Python code and type stubs for every proto under proto/aetheris.
#
#   generate.sh [--check] BIN OUT
#
# BIN is the virtual environment's bin folder, OUT the generated tree. With --check nothing is written:
# the exit code is 1 if OUT differs from what would be generated.
set -eu

check=no
if [ "$1" = --check ]; then
    check=yes
    shift
fi
bin=$(cd "$1" && pwd)
out=$2

files=$(find proto/aetheris -name '*.proto' 2>/dev/null | LC_ALL=C sort)
if [ -z "$files" ]; then
    echo "proto: no protos under proto/aetheris" >&2
    exit 0
fi
# Only these need a _pb2_grpc module; protoc would write an empty one for every other file.
services=$(echo "$files" | xargs grep -l '^service ' || true)

# Beside OUT, so that the exchange below is a rename on one file system.
fresh=$(mktemp -d proto/.gen.XXXXXX)
trap 'rm -rf "$fresh"' EXIT

# Both variables are lists of paths without spaces: splitting them is meant.
# shellcheck disable=SC2086
"$bin/python" -m grpc_tools.protoc -I proto \
    --plugin="protoc-gen-mypy=$bin/protoc-gen-mypy" \
    --python_out="$fresh" --mypy_out="quiet:$fresh" $files
if [ -n "$services" ]; then
    # shellcheck disable=SC2086
    "$bin/python" -m grpc_tools.protoc -I proto \
        --plugin="protoc-gen-mypy_grpc=$bin/protoc-gen-mypy_grpc" \
        --grpc_python_out="$fresh" --mypy_grpc_out="quiet,only_async:$fresh" $services
fi
find "$fresh/aetheris" -type d -exec touch {}/__init__.py \;
touch "$fresh/aetheris/py.typed"

if [ "$check" = yes ]; then
    if ! diff -r -q -x __pycache__ "$out" "$fresh" >&2; then
        echo "proto: $out is stale; run make proto" >&2
        exit 1
    fi
    exit 0
fi

# Exchange by rename: a program that imports the old tree meanwhile sees one or the other.
chmod 755 "$fresh"
if [ -d "$out" ]; then
    mv "$out" "$fresh.old"
fi
mv "$fresh" "$out"
rm -rf "$fresh.old"
