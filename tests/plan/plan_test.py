"""The planner beside hand counts, the compiler, and runs that cannot fit."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import plan as beside
from configs import encoder, finetune, ict, pretrain
from realm_jax.config import InputError
from realm_jax.plan import cost, device, kernels, plan, report, trace
from realm_jax.train import finetune as train_finetune
from realm_jax.train import ict as train_ict
from realm_jax.train import pretrain as train_pretrain
from realm_jax.train import programs, shapes

_F32 = 4  # bytes


def _array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _peak(function, *args, cpu=False):
  return kernels.peak(trace.trace(function, *args), cpu)[0] / _F32


def test_elementwise_chains_take_no_memory():
  def function(x, w):
    return ((x @ w) * 2 + 1).sum()

  assert _peak(function, _array(3, 5), _array(5, 7)) == 3 * 7 + 1


def test_the_backward_pass_keeps_what_it_reads():
  def loss(w1, w2, x):
    return (jnp.tanh(x @ w1) @ w2).sum()

  found, live = kernels.peak(
    trace.trace(jax.grad(loss, (0, 1)), _array(5, 70), _array(70, 2), _array(300, 5)),
    cpu=False,
  )  # fmt: skip
  shapes_there = [v.shape for v in live]
  assert shapes_there.count((300, 70)) == 2  # tanh, and its gradient
  assert 2 * 300 * 70 <= found / _F32 < 2.2 * 300 * 70


def test_what_is_computed_again_is_not_kept():
  def layer(x, w):
    return jnp.tanh(jnp.exp(jnp.sin(x)) @ w)

  def peak(layer):
    def loss(ws, x):
      for w in ws:
        x = layer(x, w)
      return x.sum()

    return _peak(jax.grad(loss), [_array(7, 7)] * 5, _array(300, 7))

  assert peak(jax.checkpoint(layer)) < 0.75 * peak(layer)


def test_donated_results_take_no_memory():
  def function(x):
    return x * 2, x.sum()

  traced = trace.trace(function, _array(11, 13))
  assert kernels.peak(traced, False, 0)[0] == (11 * 13 + 1) * _F32
  assert kernels.peak(traced, False, 1)[0] == _F32


def test_a_loop_counts_its_rounds_and_what_a_round_takes():
  def function(x, w):
    def body(x, _):
      return jnp.sort(x @ w), None

    return jax.lax.scan(body, x, None, length=6)[0]

  args = _array(3, 5), _array(5, 5)
  assert cost.count(function, *args).flops == 6 * 2 * 3 * 5 * 5
  assert _peak(function, *args) >= 2 * 3 * 5


def test_bytes_are_those_of_the_kernels():
  counted = cost.count(
    lambda x, w: jax.nn.relu(x) @ w, _array(3, 5), _array(5, 7)
  )
  relu, product = 3 * 5 + 3 * 5, 3 * 5 + 5 * 7 + 3 * 7
  assert counted.bytes == (relu + product) * _F32
  assert counted.seconds(1e3, 1e9) == pytest.approx(2 * 3 * 5 * 7 / 1e3)
  assert counted.seconds(1e9, 1e3) == pytest.approx(counted.bytes / 1e3)


def _small(module):
  config = module.get_config("smoke")
  config.encoder.num_hidden_layers = 1
  return config


def _program(config, make, devices=1, blocks=407):
  return make(config, beside.planned_corpus(config, devices, blocks))


def test_flops_are_those_of_the_letters():
  config = _small(pretrain)
  config.fill.update(query=1.0, block=1.0, joint=1.0, masks=0.5)
  parts = plan.parts(_program(config, train_pretrain.program))
  b, k, m = 4, 4, 5
  d, v, p = 32, 1024, 16
  assert parts["MLM head"].flops == 3 * k * (b * m // 2) * 2 * d * (d + v)
  assert parts["search"].flops == 2 * b * 416 * p  # whole slices of 32
  t, hidden = 24, 48  # queries; mean pooling
  layer = 2 * t * d * (3 * d + d + 2 * hidden) + 2 * 2 * t * t * d
  assert parts["embed queries"].flops == 3 * b * (layer + 2 * d * p / 1)


@pytest.mark.parametrize(
  "module, make",
  [
    (ict, train_ict.program),
    (encoder, train_pretrain.program),
    (pretrain, train_pretrain.program),
    (finetune, train_finetune.program),
  ],
)
def test_the_parts_make_up_the_step(module, make):
  program = _program(_small(module), make)
  parts = plan.parts(program)
  parts.pop("refresh slice", None)  # the step counts one round of it
  step = cost.count(program.step, *program.args).flops
  if program.embed_all and program.args[1].shadow is not None:
    one = program.embed_all
    step -= cost.count(one.function, *one.args).flops
  assert sum(c.flops for c in parts.values()) == pytest.approx(step, rel=0.02)


@pytest.mark.parametrize(
  "module, make, devices",
  [
    (ict, train_ict.program, 8),
    pytest.param(
      pretrain, train_pretrain.program, 1, marks=pytest.mark.nightly
    ),
  ],
)
def test_within_15_percent_of_the_compiler(module, make, devices):
  says, takes = beside.compare(_small(module), make, devices)
  assert says / takes == pytest.approx(1, abs=0.15)


def test_a_device_has_its_share():
  config = _small(pretrain)
  config.train.batch_size = 16
  one, eight = (
    plan.memory(_program(config, train_pretrain.program, n, 4000))
    for n in (1, 8)
  )
  assert eight["params"] == one["params"]
  for name in ("index", "block tokens"):  # rows, to whole slices
    assert one[name] / eight[name] == pytest.approx(8, rel=0.1), name
  assert one["activations"] > 3 * eight["activations"]


def test_a_part_of_an_array_is_read_as_that_part():
  def function(rows, x):
    def body(_, first):
      return None, jax.lax.dynamic_slice_in_dim(rows, first, 3) @ x

    return jax.lax.scan(body, None, jnp.arange(4))[1]

  counted = cost.count(function, _array(90, 5), _array(5, 7))
  part, product = 2 * 3 * 5, 3 * 5 + 5 * 7 + 3 * 7
  assert counted.bytes / _F32 == pytest.approx(4 * (part + product), rel=0.1)


def test_a_run_that_cannot_fit_is_refused_by_its_biggest_part():
  config = _small(pretrain)
  program = _program(config, train_pretrain.program)
  sizes = plan.memory(program)
  plan.check(program, sizes, sum(sizes.values()))
  with pytest.raises(InputError) as e:
    plan.check(program, sizes, sum(sizes.values()) - 1)
  assert "activations" in str(e.value) and "num_candidates" in str(e.value)
  with pytest.raises(InputError, match=r"biggest part is index.* more devices"):
    plan.check(program, {"index": 80 * 10**9, "batch": 1}, 7 * 10**9)


def test_training_asks_at_its_door(monkeypatch, tmp_path, caplog):
  program = _program(_small(ict), train_ict.program)
  monkeypatch.setattr(device, "memory", lambda: 1000)
  shapes.check_fits(program)  # a host
  monkeypatch.setattr(device, "is_host", lambda: False)
  with pytest.raises(InputError, match="there is 1 kB"):
    shapes.check_fits(program)
  monkeypatch.setattr(device, "memory", lambda: None)
  shapes.check_fits(program)
  assert "does not tell its memory" in caplog.text


def test_the_table_has_every_part():
  config = _small(finetune)
  program = _program(config, train_finetune.program, 2)
  text = report.table(program, plan.memory(program), 10**9, 1e12, 1e11)
  for name in ("2 devices, 1 GB each", "optimizer moments", "index", "search",
               "span head", "floor", "every 3 steps, between steps"):  # fmt: skip
    assert name in text
  assert "on the host" not in text
  config.block_tokens = "host"
  program = _program(config, train_finetune.program, 2)
  assert program.on_host == {"block tokens": 407 * (config.block_len - 3) * 2}
  sizes = plan.memory(program)
  assert sizes["block tokens"] == 0 and "blocks" not in program.sent
  text = report.table(program, sizes, None)
  assert "floor" not in text
  said = next(line for line in text.splitlines() if "block tokens" in line)
  assert (
    said.split() == "block tokens 0, on the host up to 23.6 kB in files".split()
  )


def test_what_is_planned(tmp_path):
  config = _small(ict)
  assert programs.program(config, tmp_path, 50, 4).devices == 4
  with pytest.raises(InputError, match="--blocks"):
    programs.program(config, tmp_path)
  with pytest.raises(InputError, match="does not split over 7"):
    programs.program(config, tmp_path, 50, 7)
  del config.mask_rate
  with pytest.raises(InputError, match="not the config of one run"):
    programs.program(config, tmp_path, 50)


@pytest.mark.parametrize(
  "text, value", [("80GB", 80e9), ("3.35 TB", 3.35e12), ("9.9e14", 9.9e14)]
)
def test_sizes_in_words(text, value):
  assert device.parse("device_memory", text) == value


@pytest.mark.parametrize("text", ["80QQ", "", "much", "0", "1.2.3", "-5GB"])
def test_sizes_that_are_none(text):
  with pytest.raises(InputError, match=f"--device_memory={text}"):
    device.parse("device_memory", text)


def test_a_host_tells_its_memory():
  assert device.memory() > 2**20


def test_the_planned_mesh_needs_no_devices():
  config = _small(ict)
  config.train.batch_size = 96
  corpus = beside.planned_corpus(config, 48)
  assert corpus.mesh.size == 48 > len(jax.devices())
  program = train_ict.program(config, corpus)
  assert program.args[2].query.input_ids.shape == (2, config.query_len)
