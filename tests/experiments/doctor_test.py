"""The doctor names what is wrong, with its mend, and ends with 2."""

import importlib.metadata
import pathlib

import pytest

from experiments import checkup
from realm_jax.data import sources


def test_a_sound_machine(start, tmp_path):
  code, out, err = start("doctor", f"--workdir={tmp_path / 'not/yet'}")
  assert (code, err) == (0, ""), out
  assert "  devices: 8 x cpu" in out
  assert "\n! " not in out


def test_what_must_be_mended_ends_with_2(start, tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_JAX_CACHE", str(tmp_path))
  (tmp_path / sources.LEADS.wheel).write_text("torn")
  code, out, _ = start("doctor", f"--workdir={tmp_path}")
  assert code == 2
  damaged = f"! cache: {tmp_path / sources.LEADS.wheel} is damaged"
  assert f"{damaged}\n    -> delete it\n" in out
  assert out.endswith("1 to mend\n")


@pytest.mark.parametrize(
  ("pin", "what", "mend"),
  [
    ("jax<0.2", "jax {jax} (wanted <0.2)", 'pip install "jax<0.2"'),
    ("no-such>=3", "no-such is missing (wanted >=3)", 'install "no-such>=3"'),
    ("jax>=0.2", "jax {jax} (wanted >=0.2)", ""),
    ('no-such; extra == "x"', None, None),
  ],
)
def test_a_version_beside_its_pin(pin, what, mend, monkeypatch):
  jax = importlib.metadata.version("jax")
  monkeypatch.setattr(importlib.metadata, "requires", lambda name: [pin])
  found = [*checkup.versions()][1:]
  if what is None:
    assert found == []
  else:
    assert found[0].what == what.format(jax=jax)
    assert mend in found[0].mend and bool(found[0].mend) == bool(mend)


def test_not_installed():
  assert [*checkup.versions("not-realm-jax")][-1].must


def test_devices_that_fail_are_named(monkeypatch):
  import jax

  def fail():
    raise RuntimeError("no driver")

  monkeypatch.setattr(jax, "local_devices", fail)
  (finding,) = checkup.devices()
  assert finding.what == "devices: no driver" and finding.must


def test_a_disk_that_cannot_be_written():
  found = [*checkup.disk(pathlib.Path("/proc/nothing/here"))]
  assert found[-1].must and "/proc" in found[-1].what


def test_a_package_that_is_missing_is_a_hint(monkeypatch, tmp_path):
  monkeypatch.setenv("REALM_JAX_CACHE", str(tmp_path / "new"))
  for finding in checkup.packages():
    assert not finding.must and str(tmp_path / "new") in finding.mend


def test_settings_of_ones_own_are_named(monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
  monkeypatch.setenv("REALM_PROCESSES", "auto")
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  found = {f.what.partition(":")[0]: f for f in checkup.settings()}
  assert "unset it" in found["allocator"].mend
  assert found["REALM_PROCESSES"].what.endswith("auto")
  assert found["compiled programs"].mend
