#!/usr/bin/env bash
# Lint, format and all tests: launch/test.sh [arguments for pytest]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
use_venv "[test]"
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
exec .venv/bin/python -m pytest -n 2 "$@"
