"""docs/quickstart.ipynb runs, cell by cell, without Jupyter."""

import json
import pathlib

NOTEBOOK = pathlib.Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def test_every_cell_runs(demo, monkeypatch, capsys):
  monkeypatch.setenv("REALM_RUN", str(demo))
  notebook = json.loads(NOTEBOOK.read_text())
  assert notebook["nbformat"] == 4
  scope, said = {}, []
  for cell in notebook["cells"]:
    if cell["cell_type"] == "code":
      assert cell["outputs"] == [] and cell["execution_count"] is None
      exec(compile("".join(cell["source"]), cell["id"], "exec"), scope)
      said.append(capsys.readouterr().out)
  assert said[1].count("#") and len(said[2].splitlines()) == 5
  assert "pulled nearer by" in said[3]
  assert said[4].startswith("RealmReader: ")
  tree = scope["reader"]._repr_html_()
  assert tree is None or "treescope" in tree  # None: there is no treescope
