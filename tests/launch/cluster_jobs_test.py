"""launch/ on clusters: what the job files would start, with no cluster there.

The two jobs of a run must share its directory and nothing else, and what they
pass on must be what the commands take.
"""

import math
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from absl import flags

from experiments import __main__ as realm_jax_command
from experiments import arguments as command_line

ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
BIN = pathlib.Path(sys.executable).parent
TPU = "cloud.google.com/gke-tpu-topology"


@pytest.fixture
def start(tmp_path):
  """start(program, SCRIPT, *arguments, **env) -> what `program` was called
  with, line by line; it is a stub that writes that down."""

  def call(program, script, *arguments, code=0, **env):
    stub = tmp_path / "bin" / program
    stub.parent.mkdir(exist_ok=True)
    calls = tmp_path / "calls"
    calls.write_text("")
    stub.write_text(
      "#!/bin/bash\n"
      f'{{ printf "%s " "${{REALM_PROCESSES-unset}}"; printf "%q " "$@";'
      f" echo; }} >> {calls}\n"
    )
    stub.chmod(0o755)
    path = f"{stub.parent}:/usr/bin:/bin"
    done = subprocess.run(
      ["/bin/bash", LAUNCH / script, *arguments],
      env={"PATH": path} | env,
      cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return [shlex.split(line) for line in calls.read_text().splitlines()], done

  return call


def directives(script):
  """#SBATCH --NAME=VALUE of a script."""
  text = (LAUNCH / script).read_text()
  return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))


def parsed(arguments):
  """The config and the workdir that pretrain makes of them."""
  return command_line.parse(["pretrain", *arguments], flags.FlagValues())


def check_training(arguments):
  """What a run beside workers must be told; returns its workdir."""
  config, workdir = parsed(arguments)
  assert config.refresh.mode == "worker"
  assert config.train.checkpoint_every <= config.refresh.every_steps
  return str(workdir)


def test_slurm_trains(start):
  [[processes, *words]], _ = start(
    "srun", "slurm/train.sbatch", "--config.seed=3", RUN="/shared/a b"
  )
  at = words.index("-m")
  assert processes == "auto" and words[at + 1] == "experiments.pretrain"
  assert check_training(words[at + 2 :]) == "/shared/a b"
  assert parsed(words[at + 2 :])[0].seed == 3
  sizes = directives("slurm/train.sbatch")
  # JAX gives a task under SLURM one GPU
  assert sizes["ntasks-per-node"] == sizes["gpus-per-node"]


def test_slurm_refreshes(start):
  [[processes, *words]], _ = start(
    "srun", "slurm/refresh.sbatch", RUN="/shared/a", REALM_PROCESSES="auto"
  )
  at = words.index("-m")
  assert processes == "unset"
  assert words[at + 1 :] == [
    "experiments.refresh_worker",
    "--workdir=/shared/a",
  ]
  assert directives("slurm/refresh.sbatch")["ntasks-per-node"] == "1"


@pytest.mark.parametrize("script", ["train", "refresh"])
def test_slurm_without_a_run_says_so(start, script):
  calls, done = start("srun", f"slurm/{script}.sbatch", code=1)
  assert calls == [] and "RUN: is missing: RUN=" in done.stderr


def job(name):
  """The one job of a JobSet, its pod and its container."""
  jobset = yaml.safe_load((LAUNCH / "gke" / f"jobset-{name}.yaml").read_text())
  assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert jobset["kind"] == "JobSet"
  (replicated,) = jobset["spec"]["replicatedJobs"]
  spec = replicated["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  return replicated, spec, pod, container


@pytest.mark.parametrize("name", ["train", "refresh"])
def test_gke_has_a_pod_for_each_host(name):
  replicated, spec, pod, container = job(name)
  chips = math.prod(map(int, pod["nodeSelector"][TPU].split("x")))
  of_a_host = container["resources"]["limits"]["google.com/tpu"]
  assert spec["completions"] == spec["parallelism"] == chips // of_a_host
  assert spec["completionMode"] == "Indexed"
  assert replicated["replicas"] == (1 if name == "train" else 4)
  mounted = [mount["name"] for mount in container["volumeMounts"]]
  assert mounted == [volume["name"] for volume in pod["volumes"]]


def test_gke_trains_and_refreshes_one_run():
  _, _, pod, train = job("train")
  _, _, other, refresh = job("refresh")
  assert train["command"] == ["realm-jax", "pretrain"]
  workdir = check_training(train["args"])
  assert train["env"] == [{"name": "REALM_PROCESSES", "value": "auto"}]
  assert refresh["command"][-2:] == ["realm-jax", "refresh_worker"]
  assert refresh["args"] == [f"--workdir={workdir}"]
  assert "env" not in refresh
  assert pod["volumes"] == other["volumes"]
  assert train["volumeMounts"] == refresh["volumeMounts"]
  assert workdir.startswith(train["volumeMounts"][0]["mountPath"])
  assert {"pretrain", "refresh_worker"} <= set(realm_jax_command.docs())


def test_tpu_vm_runs_on_all_hosts(start):
  flag = "--config.mask_template=[MASK] : {question}"
  words = ["experiments.pretrain", "--workdir=/mnt/a", flag]
  [[_, *call]], _ = start("gcloud", "tpu_vm.sh", "pod", "zone-a", *words)
  assert call[:5] == ["compute", "tpus", "tpu-vm", "ssh", "pod"]
  assert {"--zone=zone-a", "--worker=all"} <= set(call)
  inner = shlex.split(call[-1].removeprefix("--command="))
  assert inner[:4] == ["cd", "realm-jax", "&&", "REALM_PROCESSES=auto"]
  assert inner[-3:] == words and inner[-4] == "-m"
  worker = ["experiments.refresh_worker", "--workdir=/mnt/a"]
  [[_, *call]], _ = start(
    "gcloud", "tpu_vm.sh", "pod", "zone-a", *worker, REALM_PROCESSES=""
  )
  assert " REALM_PROCESSES= " in call[-1].replace("  ", " ")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git archives it")
def test_tpu_vm_installs_this_commit(start):
  [[_, *copy], [_, *ssh]], _ = start(
    "gcloud", "tpu_vm.sh", "pod", "zone-a", "setup"
  )
  assert copy[3] == "scp" and copy[5] == "pod:realm-jax.tar.gz"
  assert "use_venv ''" in ssh[-1] and "'jax[tpu]'" in ssh[-1]
  start("gcloud", "tpu_vm.sh", "pod", code=2)


def test_the_image_has_what_it_runs():
  lines = (LAUNCH / "Containerfile").read_text().splitlines()
  for line in lines:
    if line.startswith("COPY "):
      assert all((ROOT / name).exists() for name in line.split()[1:-1])
  assert lines[-1] == 'ENTRYPOINT ["realm-jax"]'
  assert "\nrealm-jax = " in (ROOT / "pyproject.toml").read_text()


def test_shell_scripts_are_sound():
  scripts = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("slurm/*")])
  scripts += sorted((ROOT / "benchmarks").glob("*.sh"))
  assert len(scripts) >= 7
  subprocess.run(
    [BIN / "shellcheck", "--external-sources", *scripts], cwd=ROOT, check=True
  )


def test_manifests_are_sound():
  relaxed = "{extends: default, rules: {document-start: disable}}"
  lint = [sys.executable, "-m", "yamllint", "--strict", "-d", relaxed]
  subprocess.run(
    [*lint, LAUNCH / "gke"], check=True, env=os.environ | {"PYTHONPATH": ""}
  )
