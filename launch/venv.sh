# shellcheck shell=bash
# Sourced by the scripts beside it: the repository's own Python environment.

# Prints the newest Python that can make a virtual environment. A name on PATH
# is not enough: it may be an inert shim, or a Debian Python without venv.
find_python() {
  local name path
  for name in python3.12 python3.11; do
    while IFS= read -r path; do
      if "$path" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        printf '%s\n' "$path"
        return
      fi
    done < <(type -aP "$name")
  done
  echo "error: no python3.12 or python3.11 with venv and pip on PATH:" \
    "install one (on Debian: apt-get install python3.11-venv)" >&2
  return 2
}

# use_venv EXTRA: makes .venv where it is missing and installs the project with
# "" or "[test]". The stamp is the pyproject.toml that was last installed.
use_venv() {
  local extra="$1" stamp=".venv/installed$1.toml" python
  if cmp -s pyproject.toml "$stamp"; then
    return
  fi
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python="$(find_python)" || return
    echo "Making .venv with $python"
    "$python" -m venv --clear .venv
  fi
  echo "Installing realm-jax$extra into .venv (the first time takes minutes)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-compile --editable ".$extra"
  cp pyproject.toml "$stamp"
  cp pyproject.toml .venv/installed.toml
}
