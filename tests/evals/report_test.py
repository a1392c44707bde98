"""The page: all there, nothing from a network, nothing run."""

import html.parser
import json

import numpy as np
import pytest

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.evals import exact_match, plots, report
from realm_jax.retrieval import journal
from realm_jax.retrieval.evidence import Evidence
from realm_jax.serve import churn

_KEYS = {"ict": "mask_rate", "pretrain": "evidence"}
EVIL = "<script>alert(1)</script><img src=x onerror=y>"


class _Page(html.parser.HTMLParser):
  """Tags, addresses and visible text of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.addresses, self.handlers, self.text = [], [], [], ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      if name in ("href", "src", "xlink:href", "srcset", "action"):
        self.addresses.append(value)
      if name.startswith("on"):
        self.handlers.append(name)

  def handle_data(self, data):
    self.text += data


@pytest.fixture
def workdir(tmp_path):
  for order, name in enumerate(("pretrain", "ict")):
    run = tmp_path / name
    run.mkdir()
    (run / "config.json").write_text(json.dumps({_KEYS[name]: 1}))
    rows = [
      {"step": s, "time": -order, "loss": 9 - s, "index_staleness": s % 2}
      for s in range(5)
    ]
    rows += [{"step": 4, "time": 9, "dev/retrieval_utility": 1.25,
              "dev/retrieval_utility_se": 0.5, "dev/recall_5": float("nan"),
              "note": "x"}]  # fmt: skip
    lines = "\n".join(map(json.dumps, rows))
    (run / "metrics.jsonl").write_text(lines + '\n{"step": 5, "lo')
  for step in (2, 4):
    journal.append_swap(
      tmp_path / "pretrain",
      {"step": step, "version": step // 2, "params_step": step - 1,
       "overlap": 0.625, "seconds": 1.5},
    )  # fmt: skip
  summary = {
    "questions": 1600,
    "recall": {"bm25": {"20": 0.9, "1": 0.5, "5": 0.75}},
    "retrieval_utility": {"start": [0.1, 0.02]},
    "exact_match": {"realm": 0.1234567},
  }
  (tmp_path / "summary.json").write_text(json.dumps(summary))
  block = {"block_id": 7, "title": EVIL, "text": EVIL, "p": 0.25}
  rows = [exact_match.Prediction("1", EVIL, EVIL, [EVIL], True, 1.0, None,
                                 [block])] * 30  # fmt: skip
  exact_match.write_predictions(
    tmp_path / "ict" / "predictions" / "x.jsonl", rows
  )
  return tmp_path


def test_page_is_whole_and_self_contained(workdir):
  path = report.write_report(workdir)
  assert path == workdir / "report.html"
  page = _Page(path.read_text())
  assert all(address.startswith("#") for address in page.addresses)
  assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
  assert not page.handlers
  for shown in ("0.1235", "0.1 ± 0.02", "experiments.train_ict", "nats a masked wordpiece",
                "@20", "30 of 30 right", "p(z|x) = 0.250", EVIL,
                f"experiments.report --workdir={workdir}"):  # fmt: skip
    assert shown in page.text
  assert page.text.index("experiments.pretrain") > page.text.index(
    "experiments.train_ict"
  )
  assert page.tags.count("svg") == 2 * 4  # loss, utility, recall, staleness
  assert page.tags.count("details") == 12
  for shown in ("pretrain/index/swaps.jsonl", "version 2", "0.625"):
    assert shown in page.text
  assert "ict/index/swaps.jsonl" not in page.text


def test_evidence_that_changed_is_side_by_side(workdir):
  old, new = (
    Evidence(number, f"title {number}", EVIL, 0.625) for number in (5, 6)
  )
  example = churn.Example(
    EVIL, (old,), (new,), 0, frozenset([5]), frozenset([6])
  )
  changes = churn.Changes(7, 8, 1, "dev questions", 40, 3, [example])
  page = _Page(report.render(workdir, {workdir / "pretrain": changes}))
  for shown in ("Of 40 dev questions, 3 find other blocks", "title 5", "title 6",
                "block 6, p(z|x) = 0.625, only here", "Version 7", "Version 8; 0 of 1",
                EVIL):  # fmt: skip
    assert shown in page.text
  assert page.text.index("title 5") < page.text.index("title 6")
  assert not {"script", "img"} & set(page.tags)


def test_figures_have_units_and_commands_and_read_well_on_paper(workdir):
  text = report.render(workdir)
  page = _Page(text)
  assert page.tags.count("figcaption") == page.tags.count("svg")
  command = f"python -m experiments.pretrain --workdir={workdir / 'pretrain'}"
  assert page.text.count(command) == 1 + 4  # of the run, and of its figures
  assert page.text.count("Staleness of the index, steps, by training step") == 2
  assert "questions (number)" in page.text
  style = text.split("@media print")[1].split("</style>")[0]
  for rule in ("color-scheme: light", "background: #fff", "break-inside: avoid",
               "break-before: page", "nav { display: none; }"):  # fmt: skip
    assert rule in style


def test_columns_are_in_order_of_k(workdir):
  (table,) = [t for t in report._tables(workdir / "summary.json")
              if t["name"] == "recall"]  # fmt: skip
  assert table["columns"] == ["@1", "@5", "@20"]
  assert table["rows"] == [("bm25", ["0.5", "0.75", "0.9"])]


def test_the_summary_of_a_swap_is_readable(tmp_path):
  changed = {
    "test": {"count": 7, "old index, old answer": [0.25, 0.125]},
    "train": {"count": 1, "old index, old answer": [1.0, None]},
  }
  summary = {
    "groups": {"changed leaders": changed, "unchanged facts": changed},
    "examples": [{"question": EVIL, "old index": "Ann", "new index": "Bob"}],
    "seconds": {"ask": 2.5},
    "seconds_total": 7.0,
  }
  files.write_json(tmp_path / "summary.json", summary)
  (tmp_path / "config.json").write_text(json.dumps({"cloze": {}}))
  examples, leaders, facts, seconds, whole = report._tables(
    tmp_path / "summary.json"
  )
  assert (leaders["name"], facts["name"]) == tuple(summary["groups"])
  assert leaders["unit"] == "shares of questions, mean ± standard error"
  assert leaders["columns"] == ["count", "old index, old answer"]
  assert leaders["rows"] == [
    ("test", ["7", "0.25 ± 0.125"]),
    ("train", ["1", "1 ± –"]),
  ]
  assert examples["columns"] == ["new index", "old index"]
  assert examples["rows"] == [(EVIL, ["Bob", "Ann"])]
  assert seconds["rows"] == [("ask", ["2.5"])]
  assert whole["rows"] == [("seconds_total (seconds)", ["7"])]
  page = _Page(report.render(tmp_path))
  assert f"experiments.swap_demo --workdir={tmp_path}" in page.text
  assert not {"script", "img"} & set(page.tags)


def test_a_single_run_is_a_workdir_too(workdir):
  page = report.render(workdir / "ict")
  assert "experiments.train_ict" in page
  assert "experiments.pretrain" not in page


def test_no_run_is_said(tmp_path):
  with pytest.raises(InputError, match=r"no metrics\.jsonl, summary\.json"):
    report.render(tmp_path)


def test_broken_metrics_line_is_named(workdir):
  path = workdir / "ict" / "metrics.jsonl"
  path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
  with pytest.raises(InputError, match=r"metrics.jsonl:2: not a JSON object"):
    report.render(workdir)


def _diagonal(count):
  x = range(count)
  return plots.curves_svg({"a < $b": (x, x)}, x_label="step", y_label="nats")


def test_curves_take_the_pages_ink_and_are_thinned():
  svg = _diagonal(5000)
  assert "currentColor" in svg and plots._INK not in svg
  assert len(svg) < len(_diagonal(10)) + 30 * plots._MAX_POINTS
  assert _diagonal(10) == _diagonal(10)


def test_running_mean():
  y = np.array([0.0, 6, 0, 6, 12])
  assert plots.running_mean(y, 1).tolist() == [3, 2, 4, 6, 9]
  assert plots.running_mean(y, 0).tolist() == y.tolist()
  assert plots.running_mean(y, 9).tolist() == pytest.approx([4.8] * 5)


@pytest.mark.parametrize("count", [1, 12, 23, 40])
def test_samples_are_spread_over_all_questions(tmp_path, count):
  path = tmp_path / "predictions.jsonl"
  rows = [
    exact_match.Prediction(str(i), "?", "", ["x"], False) for i in range(count)
  ]
  exact_match.write_predictions(path, rows)
  shown = [int(row.id) for row in report._samples(tmp_path, path)["rows"]]
  assert len(shown) == min(count, 12) and shown[0] == 0
  assert shown[-1] >= count - 1 - count // 12
