// Asking: the form, the address of the page, one answer or two beside it.

import { explanation, key } from "./answer.js";
import { insist } from "./api.js";
import { byId, count, h } from "./dom.js";

const NEWEST = "";
let runs = [];
let fit = "newest"; // what is asked where no run is named
let waiting = new AbortController(); // of what was asked last; only that is shown

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => h("option", { value }, text)));
  select.value = pairs.some(([value]) => value === chosen) ? chosen : pairs[0][0];
}

function runOf(name) {
  return runs.find((run) => run.name === name);
}

function versions(run) {
  const there = run ? run.versions.filter((v) => !v.trouble) : [];
  return there.map((v) => String(v.version)).reverse();
}

function fillIndexes(chosen) {
  const there = versions(runOf(byId("run").value));
  options(byId("index"), [[NEWEST, "newest"], ...there.map((v) => [v, v])], chosen);
}

// What can be asked beside: each run's newest version, and each of its others.
function besides() {
  const pairs = [["", "nothing"]];
  for (const run of runs) {
    pairs.push([`${run.name}~`, `${run.name}, newest`]);
    const older = versions(run).slice(1);
    pairs.push(...older.map((v) => [`${run.name}~${v}`, `${run.name}, index ${v}`]));
  }
  return pairs;
}

function fitting(known) {
  if (known.filler === known.default) return known.default;
  return `${known.default}; ${known.filler} for [MASK]`;
}

export function setRuns(known) {
  runs = known.runs.filter((run) => run.kind && run.step !== null);
  fit = fitting(known);
  choose(readAddress());
}

// What the form's lists say, as the address does.
function choose({ run, index, beside }) {
  const whole = [["", fit], ...runs.map((r) => [r.name, r.name])];
  options(byId("run"), whole, run);
  fillIndexes(index);
  options(byId("beside"), besides(), beside);
}

function readAddress() {
  const query = new URLSearchParams(location.search);
  const get = (name) => query.get(name) ?? "";
  return { q: get("q"), run: get("run"), index: get("index"), beside: get("beside") };
}

function writeAddress(state) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value) query.set(name, value);
  const address = `/?${query}`;
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
}

function body(question, run, index) {
  const asked = { question };
  if (run) asked.run = run;
  if (run && index) asked.index = index;
  return asked;
}

function show(answers) {
  const sets = answers.map((x) => new Set(x.evidence.map(key)));
  const columns = answers.map((x, i) => explanation(x, answers.length > 1 ? sets[1 - i] : null));
  if (answers.length > 1) {
    const both = [...sets[0]].filter((block) => sets[1].has(block)).length;
    columns.unshift(h("p", { class: "shared" }, `${both} of ${sets[0].size} blocks are found by both.`));
  }
  byId("answers").replaceChildren(...columns);
  byId("answers").className = answers.length > 1 ? "two" : "one";
}

function hints() {
  const pairs = [
    ["A question", "is answered from blocks of the corpus; each shows how much it counted, p(z|x), and what was read in it."],
    ["A sentence with [MASK]", "has the word filled in, summed over all the blocks found."],
    ["Beside it", "asks another run, or an older index version, the same."],
  ];
  return h("dl", { class: "hint" }, pairs.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]).flat());
}

async function ask(state) {
  waiting.abort();
  waiting = new AbortController();
  const { signal } = waiting;
  const status = byId("status");
  status.className = "status";
  if (!state.q.trim()) {
    byId("answers").replaceChildren(hints());
    byId("answers").removeAttribute("aria-busy");
    status.textContent = state.q ? "Write some words." : "";
    document.title = "REALM";
    return;
  }
  status.textContent = "Looking for evidence …";
  document.title = `${state.q.slice(0, 60)} – REALM`;
  const bodies = [body(state.q, state.run, state.index)];
  if (state.beside) {
    const cut = state.beside.lastIndexOf("~");
    bodies.push(body(state.q, state.beside.slice(0, cut), state.beside.slice(cut + 1)));
  }
  const tell = (why) => {
    if (!signal.aborted) status.textContent = `Please wait: ${why} …`;
  };
  byId("answers").setAttribute("aria-busy", "true");
  try {
    const answers = await Promise.all(bodies.map((b) => insist("/api/ask", b, tell, signal)));
    if (signal.aborted) return;
    show(answers);
    status.textContent = `${count(answers[0].evidence.length, "block")} found as evidence.`;
    status.className = "status unseen";
  } catch (error) {
    if (signal.aborted) return;
    byId("answers").replaceChildren();
    status.textContent = `No answer: ${error.message}.`;
    status.className = "status trouble";
  } finally {
    if (!signal.aborted) byId("answers").removeAttribute("aria-busy");
  }
}

function state() {
  return {
    q: byId("question").value,
    run: byId("run").value,
    index: byId("index").value,
    beside: byId("beside").value,
  };
}

function submit() {
  const now = state();
  writeAddress(now);
  ask(now);
}

// The page as its address says.
export function open() {
  const address = readAddress();
  byId("question").value = address.q;
  choose(address);
  ask(address);
}

export function start() {
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("run").addEventListener("change", () => fillIndexes(NEWEST));
  for (const id of ["run", "index", "beside"]) {
    byId(id).addEventListener("change", () => {
      if (byId("question").value.trim()) submit();
    });
  }
}
