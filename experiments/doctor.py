"""Looks at what a run needs of this machine, and says what to mend.

  python -m experiments.doctor [--workdir=DIR]

Versions, devices, memory, the disk of DIR, the cache of text packages, huge
pages, the place in a job of several processes. Ends with 2 where something
must be mended first; a line with a mend and without "!" is a hint.

Needs: nothing; in a job of several processes, REALM_PROCESSES.
"""

import sys

from ml_collections import config_dict

from experiments import command


def main(config, workdir):
  del config
  from experiments import checkup

  checks = (
    checkup.versions(),
    checkup.devices(),
    checkup.memory(),
    checkup.disk(workdir),
    checkup.packages(),
    checkup.settings(),
  )
  wrong = 0
  for finding in (finding for check in checks for finding in check):
    must = bool(finding.mend and finding.must)
    wrong += must
    mark = ("!" if must else "-") if finding.mend else " "
    print(f"{mark} {finding.what}", flush=True)
    if finding.mend:
      print(f"    -> {finding.mend}", flush=True)
  if wrong:
    print(f"{wrong} to mend", flush=True)
    sys.exit(2)


if __name__ == "__main__":
  command.run(
    main,
    defaults=config_dict.ConfigDict(),
    default_workdir=".",
    several_processes=True,
  )
