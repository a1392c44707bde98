// The dashboard: all runs of the folder, read again every few seconds.

import { call } from "./api.js";
import { chart, timeline } from "./chart.js";
import { ago, bar, byId, count, figure, h } from "./dom.js";

const SECONDS = 3;
const COLOURS = 6;
const LIVE_SECONDS = 60;
const KINDS = {
  reads: "reads answers",
  "fills in": "fills in [MASK]",
  finds: "finds blocks",
};

let timer = null;
let known = null;
let curves = new Map(); // name -> {mark, panels}
let shown = null; // names of the runs whose curves are drawn
let more = false;

function colour(name) {
  return `c${known.runs.findIndex((run) => run.name === name) % COLOURS}`;
}

function isLive(run) {
  return run.updated !== null && Date.now() / 1000 - run.updated < LIVE_SECONDS && run.step !== run.num_steps;
}

function toggle(name, on) {
  if (on) shown.add(name);
  else shown.delete(name);
  const query = new URLSearchParams({ view: "runs", show: [...shown].join(",") });
  history.replaceState(null, "", `/?${query}`);
  refresh();
}

function row(run) {
  const newest = run.versions.at(-1);
  const alive = run.workers.filter((worker) => !worker.ended).length;
  const behind = newest && !newest.trouble && run.step !== null ? run.step - newest.params_step : null;
  const box = h("input", { type: "checkbox", "aria-label": `Show the curves of ${run.name}`, onchange: (event) => toggle(run.name, event.target.checked) });
  box.checked = shown.has(run.name);
  return h("tr", {},
    h("td", {}, box),
    h("th", { scope: "row" }, h("span", { class: `key ${colour(run.name)}`, "aria-hidden": "true" }), run.name,
      isLive(run) ? [" ", h("span", { class: "tag" }, "live")] : null),
    h("td", {}, KINDS[run.kind] ?? ""),
    h("td", { class: "progress" },
      run.step === null ? "no checkpoint" : `${run.step.toLocaleString("en")}${run.num_steps ? ` / ${run.num_steps.toLocaleString("en")}` : ""}`,
      run.num_steps && run.step !== null ? bar(run.step / run.num_steps) : null),
    h("td", {}, !newest ? "–" : newest.trouble ? h("span", { class: "trouble" }, "damaged") : `${newest.version}${behind > 0 ? `, ${count(behind, "step")} behind` : ""}`),
    h("td", {}, run.workers.length ? `${alive} of ${run.workers.length}` : "–"),
    h("td", {}, run.updated === null ? "–" : ago(run.updated)));
}

function table() {
  const heads = ["", "run", "what it does", "step", "newest index", "workers at it", "last figures"];
  return h("table", { class: "runs" },
    h("caption", { class: "unseen" }, "All runs of this folder"),
    h("thead", {}, h("tr", {}, heads.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {}))))),
    h("tbody", {}, known.runs.map(row)));
}

// {metric: {title, unit, headline, lines}} over the runs shown
function gather() {
  const metrics = new Map();
  for (const run of known.runs) {
    const read = shown.has(run.name) ? curves.get(run.name) : null;
    for (const panel of read ? read.panels : []) {
      for (const [metric, curve] of Object.entries(panel.curves)) {
        if (!curve.steps.length) continue;
        const entry = metrics.get(metric) ?? { panel, lines: [] };
        entry.lines.push({ name: run.name, colour: colour(run.name), curve });
        metrics.set(metric, entry);
      }
    }
  }
  return metrics;
}

function panels() {
  const groups = new Map();
  for (const [metric, entry] of gather()) {
    const title = entry.panel.title;
    if (!groups.has(title)) groups.set(title, { headline: entry.panel.headline, order: entry.panel.order, charts: [] });
    groups.get(title).charts.push(chart(title, metric, entry.panel.unit, entry.lines));
  }
  const draw = (groups) => h("div", { class: "charts" }, groups.map(([, group]) => group.charts).flat());
  const all = [...groups].sort(([, a], [, b]) => a.order - b.order);
  const others = all.filter(([, group]) => !group.headline);
  const parts = [draw(all.filter(([, group]) => group.headline))];
  if (others.length) {
    const rest = h("details", { class: "more", ontoggle: (event) => { more = event.target.open; } },
      h("summary", {}, `More: ${others.map(([title]) => title.toLowerCase()).join(", ")}`), draw(others));
    rest.open = more;
    parts.push(rest);
  }
  return parts;
}

function segments(run) {
  const last = run.step ?? run.swaps.at(-1).step;
  const first = run.swaps[0];
  const begun = first.step > 0 ? [{ step: 0, version: first.version - 1, params_step: "its start" }] : [];
  const swaps = [...begun.filter((swap) => swap.version >= 0), ...run.swaps];
  return swaps.map((swap, i) => ({ ...swap, from: swap.step, to: Math.max(swaps[i + 1]?.step ?? last, swap.step) }));
}

function swapTable(run) {
  const heads = ["version", "searched from step", "params of step", "best blocks kept", "seconds it cost"];
  const kept = (swap) => (typeof swap.overlap === "number" ? `${Math.round(100 * swap.overlap)} %` : "–");
  return h("details", {}, h("summary", {}, `${count(run.swaps.length, "swap")} of ${run.name}`),
    h("table", {},
      h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, run.swaps.map((swap) =>
        h("tr", {}, [swap.version, swap.step, swap.params_step, kept(swap), typeof swap.seconds === "number" ? figure(swap.seconds) : "–"]
          .map((value) => h("td", { class: "number" }, String(value))))))));
}

function timelines() {
  const runs = known.runs.filter((run) => shown.has(run.name) && run.swaps.length);
  if (!runs.length) return [];
  return [h("h2", {}, "Index versions, by the step from which they were searched"),
    runs.map((run) => h("div", { class: "swaps" },
      h("p", { class: "label" }, run.name), timeline(run.name, segments(run), colour(run.name)), swapTable(run)))].flat();
}

function workers() {
  const rows = known.runs.flatMap((run) => run.workers.map((worker) =>
    h("tr", {}, h("th", { scope: "row" }, worker.id), h("td", {}, run.name), h("td", {}, worker.state),
      h("td", {}, worker.message), h("td", {}, worker.ended ? "–" : `${Math.round(worker.silent_seconds)} s`))));
  if (!rows.length) return [];
  return [h("h2", {}, "Refresh workers"), h("div", { class: "wide" }, h("table", {},
    h("thead", {}, h("tr", {}, ["worker", "run", "state", "what it says", "silent for"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows)))];
}

function differences() {
  const names = known.runs.map((run) => run.name).filter((name) => shown.has(name));
  const text = (value) => (value === null || value === undefined ? "–" : typeof value === "string" ? value || "“”" : JSON.stringify(value));
  const rows = Object.entries(known.differences)
    .map(([name, row]) => [name, names.map((run) => text(row[run]))])
    .filter(([, values]) => new Set(values).size > 1)
    .map(([name, values]) => h("tr", {}, h("th", { scope: "row" }, name), values.map((value) => h("td", {}, value))));
  if (!rows.length) return [];
  return [h("details", { class: "more" }, h("summary", {}, `${count(rows.length, "config key")} in which these runs differ`),
    h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Config differences" }, h("table", { class: "config" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "key"), names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows))))];
}

const FOCUSABLE = "input, summary, [tabindex]";

// Draws a part anew; what was open stays open, and the keyboard where it was.
function put(id, parts) {
  const place = byId(id);
  const at = [...place.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  const open = [...place.querySelectorAll("details")].map((details) => details.open);
  place.replaceChildren(...parts);
  [...place.querySelectorAll("details")].forEach((details, i) => { details.open ||= open[i] ?? false; });
  if (at >= 0) place.querySelectorAll(FOCUSABLE)[at]?.focus({ preventScroll: true });
}

// A status that says the same again is not read out again.
function say(text) {
  const place = byId("runs-status");
  if (place.textContent !== text) place.textContent = text;
  place.className = text ? "status trouble" : "status";
}

async function readCurves() {
  const wanted = known.runs.map((run) => run.name).filter((name) => shown.has(name));
  const troubles = [];
  await Promise.all(wanted.map(async (run) => {
    const mark = curves.get(run)?.mark ?? "";
    try {
      const value = await call(`/api/curves?${new URLSearchParams({ run, mark })}`);
      if (value) curves.set(run, value);
    } catch (error) { // the other runs' curves are drawn
      troubles.push([run, error.message]);
    }
  }));
  return [wanted.join() + wanted.map((run) => curves.get(run)?.mark ?? "").join(), troubles];
}

let drawn = "";
let reading = false;
let again = false;

// One reading at a time: an answer never overtakes a later one.
async function refresh() {
  again = true;
  if (reading) return;
  reading = true;
  while (again) {
    again = false;
    await read();
  }
  reading = false;
}

async function read() {
  try {
    known = await call("/api/runs");
    shown ??= firstShown();
    const [mark, troubles] = await readCurves();
    const inTable = byId("runs-table").contains(document.activeElement);
    if (!inTable || mark !== drawn) redrawTable(inTable);
    if (mark !== drawn) {
      put("panels", panels());
      put("timelines", timelines());
      put("differences", differences());
    }
    drawn = mark;
    put("workers", workers());
    const damaged = known.runs.filter((run) => run.trouble).map((run) => [run.name, run.trouble]);
    const why = [...Object.entries(known.troubles), ...damaged, ...troubles].map(([run, text]) => `${run}: ${text}`);
    say([...new Set(why)].join("; "));
  } catch (error) {
    say(`Not up to date: ${error.message}.`);
  }
}

// Who is in the table with the keyboard stays where he is.
function redrawTable(keep) {
  const label = keep ? document.activeElement.getAttribute("aria-label") : null;
  put("runs-table", [table()]);
  if (label) byId("runs-table").querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus();
}

function firstShown() {
  const named = new URLSearchParams(location.search).get("show");
  const names = known.runs.map((run) => run.name);
  if (named !== null) return new Set(named.split(",").filter((name) => names.includes(name)));
  return new Set([known.default, known.filler].filter((name) => names.includes(name)));
}

export function watch(on) {
  clearInterval(timer);
  timer = null;
  if (!on) return;
  refresh();
  timer = setInterval(() => { if (!document.hidden) refresh(); }, 1000 * SECONDS);
}
