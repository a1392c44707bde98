"""A plan as a table of text."""

from realm_jax.plan import plan
from realm_jax.plan.cost import Cost
from realm_jax.plan.plan import Program, show

_WIDTH = 22


def table(
  program: Program,
  sizes: dict[str, int],
  available: int | None,
  peak_flops: float | None = None,
  bandwidth: float | None = None,
  wire: float | None = None,
) -> str:
  """Memory a device, cost of a step, cost of a refresh.

  Args:
    program: of the run.
    sizes: what plan.memory says of it.
    available: bytes of a device's memory, None where that is not known.
    peak_flops: FLOPs of a device in a second; seconds where both are given.
    bandwidth: bytes that its memory moves in a second.
    wire: bytes that it sends in a second; seconds of that where it is given.
  """
  total = sum(sizes.values())
  of = "unknown memory" if available is None else f"{show(available)} each"
  devices = f"{program.devices} device" + "s" * (program.devices > 1)
  lines = [_row("memory a device", f"{devices}, {of}")]
  lines += [_row(k, show(v), f"{v / total:.0%}") for k, v in sizes.items() if v]
  lines += [
    f"{name:{_WIDTH}}{show(0):>14}, on the host up to {show(size)} in files"
    for name, size in program.on_host.items()
  ]
  share = "" if available is None else f"{total / available:.0%} of a device"
  lines += [_row("all", show(total), "100%", "", share), ""]

  rates = (peak_flops, bandwidth) if peak_flops and bandwidth else None
  seconds = ["floor"] if rates else []
  lines.append(_row("a step, on a device", "FLOPs", "bytes", *seconds))
  parts = plan.parts(program)
  lines += [_cost(name, cost, rates) for name, cost in parts.items()]
  lines += [_cost("all", _sum(parts), rates, list(parts.values())), ""]

  if program.sent:
    lines += [*_sent(program.sent, wire), ""]
  whole = plan.refresh(program)
  if whole is None:
    return "\n".join([*lines, "no index, no refresh"])
  every = program.refresh_every
  lines.append(_row("a refresh, on a device", "FLOPs", "bytes", *seconds))
  lines.append(_cost("all blocks", whole, rates))
  if not every:
    return "\n".join([*lines, "never, once the first version is made"])
  inside = parts.get("refresh slice")
  step = _sum({k: v for k, v in parts.items() if k != "refresh slice"}).flops
  share = (inside.flops if inside else whole.flops / every) / step
  way = "inside the steps" if inside else "between steps"
  lines.append(f"every {every} steps, {way}: {share:.0%} of the rest of a step")
  return "\n".join(lines)


def _cost(name, cost: Cost, rates, parts=None) -> str:
  cells = [show(cost.flops, "FLOP"), show(cost.bytes)]
  if rates:
    parts = [cost] if parts is None else parts
    cells.append(f"{1e3 * sum(p.seconds(*rates) for p in parts):.3g} ms")
  return _row(name, *cells)


def _sent(sent: dict[str, int], wire: float | None) -> list[str]:
  def row(name, size):
    return _row(name, show(size), *([seconds(size / wire)] if wire else []))

  return [
    _row("a step sends, a device", "bytes", *(["floor"] if wire else [])),
    *(row(name, size) for name, size in sent.items()),
    row("all", sum(sent.values())),
  ]


def seconds(value: float) -> str:
  """12.3 ms, with three digits."""
  return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _sum(parts: dict[str, Cost]) -> Cost:
  total = Cost()
  for cost in parts.values():
    total = total.plus(cost)
  return total


def _row(name: str, *cells: str) -> str:
  return (f"{name:{_WIDTH}}" + "".join(f"{c:>14}" for c in cells)).rstrip()
