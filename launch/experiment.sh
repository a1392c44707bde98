# shellcheck shell=bash
# Sourced by demo.sh and swap_demo.sh, which have gone to the repository.
source launch/venv.sh

# run_experiment NAME CONFIG WORKDIR [ARGUMENT ...]: runs experiments.NAME with
# configs/CONFIG.py. The arguments are the script's own: a workdir, from where
# the script was called, in WORKDIR's place, and --smoke.
run_experiment() {
  local name="$1" config="$2" workdir="$3" size=demo word
  for word in "${@:4}"; do
    case "$word" in
      --smoke) size=smoke ;;
      -* | "")
        echo "usage: launch/${0##*/} [WORKDIR] [--smoke]" >&2
        exit 2
        ;;
      /*) workdir="$word" ;;
      *) workdir="$OLDPWD/$word" ;;
    esac
  done
  use_venv ""
  exec .venv/bin/python -m "experiments.$name" \
    --config="configs/$config.py:$size" --workdir="$workdir"
}
