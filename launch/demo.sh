#!/usr/bin/env bash
# The whole of REALM on real text, in minutes on a laptop:
#   launch/demo.sh [WORKDIR] [--smoke]
# WORKDIR: where the run goes, by default runs/demo in the repository.
# --smoke: a tiny run that only shows that everything works.
set -euo pipefail

workdir="" arg=demo
for word in "$@"; do
  case "$word" in
    --smoke) arg=smoke ;;
    -* | "") echo "usage: launch/demo.sh [WORKDIR] [--smoke]" >&2; exit 2 ;;
    /*) workdir="$word" ;;
    *) workdir="$PWD/$word" ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
use_venv ""
exec .venv/bin/python -m experiments.demo \
  --config="configs/demo.py:$arg" --workdir="${workdir:-runs/demo}"
