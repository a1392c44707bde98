"""The serving command: its flags, its token, and what it refuses."""

from ml_collections import config_dict

from experiments import serve
from realm_jax.serve import limits, server


def test_flags_become_options(monkeypatch, tmp_path):
  served = []
  monkeypatch.setattr(server, "serve", lambda *args: served.append(args))
  monkeypatch.setenv(server.TOKEN, "a secret of the house")
  config = config_dict.create(
    address="0.0.0.0", port=7, hosts="a.example,b.example", batch_size=3,
    max_waiting=5, seconds=2.5,
  )  # fmt: skip
  serve.main(config, tmp_path)
  ((workdir, options, _),) = served
  assert workdir == tmp_path
  assert options == server.Options(
    address="0.0.0.0",
    port=7,
    hosts=("a.example", "b.example"),
    token="a secret of the house",
    batch_size=3,
    limits=limits.Limits(waiting=5, seconds=2.5),
  )
