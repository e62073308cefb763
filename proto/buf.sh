#!/bin/sh
# Lint the protos, check their format, and refuse a change that breaks what main has.
#
#   buf.sh BIN
#
# BIN is the virtual environment's bin folder. Needs no network: buf.yaml has no dependencies, and
# Google's well-known types are built into buf.
set -eu
buf=$1/buf

if [ -z "$(find proto/aetheris -name '*.proto' 2>/dev/null)" ]; then
    echo "buf: no protos under proto/aetheris" >&2
    exit 0
fi

"$buf" lint
"$buf" format --diff --exit-code

git_dir=$(git rev-parse --git-common-dir 2>/dev/null) || exit 0
for branch in origin/main main; do
    if git cat-file -e "$branch:proto/aetheris" 2>/dev/null && git cat-file -e "$branch:buf.yaml" 2>/dev/null
    then
        base=$(git rev-parse "$branch")
        # On main itself the change is the last commit; a clone without history has nothing to compare.
        if [ "$base" = "$(git rev-parse HEAD)" ]; then
            base=$(git rev-parse --verify --quiet "$base^") || exit 0
            git cat-file -e "$base:proto/aetheris" 2>/dev/null || exit 0
        fi
        "$buf" breaking --against "$git_dir#ref=$base"
        exit 0
    fi
done
