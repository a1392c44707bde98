"""The commands: `python -m experiments.NAME --workdir=DIR …`."""
