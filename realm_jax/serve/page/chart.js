// One small chart: lines by step, a band from lowest to highest where points
// were put together. The arrow keys and the pointer move along the steps.

import { figure, h, svg } from "./dom.js";

const W = 400, H = 190;
const NOISY = 60; // points from which on their mean is drawn over them
const COUNTED = ["steps", "number"]; // units whose jumps are no noise
const LEFT = 46, RIGHT = 8, TOP = 20, BOTTOM = 22;

function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((s) => s >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function extent(lists) {
  const all = lists.flat();
  let low = Infinity, high = -Infinity;
  for (const value of all) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  return [low, high];
}

function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

// What a noisy curve does: the mean over neighbours on both sides.
function smooth(values) {
  const reach = Math.floor(values.length / 25);
  const sums = [0];
  for (const value of values) sums.push(sums.at(-1) + value);
  return values.map((_, i) => {
    const from = Math.max(i - reach, 0), to = Math.min(i + reach + 1, values.length);
    return (sums[to] - sums[from]) / (to - from);
  });
}

function nearest(steps, step) {
  let best = 0;
  steps.forEach((s, i) => {
    if (Math.abs(s - step) < Math.abs(steps[best] - step)) best = i;
  });
  return best;
}

// lines: [{name, colour: "c0", curve: {steps, values, low, high}}]
export function chart(title, metric, unit, lines) {
  const curves = lines.map((line) => line.curve);
  const [x0, x1] = extent([...curves.map((c) => c.steps), [0]]);
  // single wild points of a band do not set the scale
  const [low, high] = extent(curves.map((c) => c.values));
  const pad = 0.06 * (high - low);
  const [y0, y1] = [low >= 0 && low < 0.3 * high ? 0 : low - pad, high + pad];
  const sx = (x) => LEFT + ((x - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const sy = (y) => H - BOTTOM - ((y - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  const clip = (y) => Math.min(Math.max(sy(y), TOP), H - BOTTOM);

  const grid = ticks(y0, y1, 4).map((y) => [
    svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: sy(y), y2: sy(y) }),
    svg("text", { class: "tick", x: LEFT - 6, y: sy(y) + 3.5, "text-anchor": "end" }, figure(y)),
  ]);
  const steps = ticks(x0, x1, 5).filter(Number.isInteger).map((x) =>
    svg("text", { class: "tick", x: sx(x), y: H - 6, "text-anchor": x === x0 ? "start" : "middle" }, x.toLocaleString("en")));
  const drawn = lines.map(({ colour, curve }) => {
    const at = curve.steps.map(sx);
    const parts = [];
    if (curve.low) {
      const up = curve.high.map((y, i) => [at[i], clip(y)]);
      const down = curve.low.map((y, i) => [at[i], clip(y)]).reverse();
      parts.push(svg("path", { class: `band ${colour}`, d: `${path([...up, ...down])}Z` }));
    }
    const noisy = at.length > NOISY && !COUNTED.includes(unit);
    const draw = (kind, values) => svg("path", { class: `${kind} ${colour}`, d: path(values.map((y, i) => [at[i], sy(y)])) });
    if (noisy) parts.push(draw("raw", curve.values));
    parts.push(draw("line", noisy ? smooth(curve.values) : curve.values));
    if (at.length < 30) {
      parts.push(...curve.values.map((y, i) => svg("circle", { class: `dot ${colour}`, cx: at[i], cy: sy(y), r: 2 })));
    }
    return parts;
  });
  const cross = svg("line", { class: "cross", y1: TOP, y2: H - BOTTOM, visibility: "hidden" });
  const lasts = lines.map(({ name, curve }) => `${name} ${figure(curve.values.at(-1))} at step ${curve.steps.at(-1)}`);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}, ${metric}, ${unit}. Last: ${lasts.join("; ")}` },
    svg("text", { class: "tick", x: 0, y: 10 }, unit), ...grid.flat(), ...steps, ...drawn.flat(), cross);
  const readout = h("span", { class: "readout", "aria-live": "polite" });
  const all = curves[0].steps;
  let place = all.length - 1;

  function last() {
    cross.setAttribute("visibility", "hidden");
    readout.replaceChildren(...values(null));
  }
  function values(step) {
    const shown = lines.map(({ colour, curve }) => {
      const i = step === null ? curve.values.length - 1 : nearest(curve.steps, step);
      return h("span", { class: `value ${colour}` }, figure(curve.values[i]));
    });
    return step === null ? shown : [h("span", { class: "quiet" }, `step ${step.toLocaleString("en")}`), ...shown];
  }
  function point(step) {
    place = nearest(all, step);
    cross.setAttribute("x1", sx(all[place]));
    cross.setAttribute("x2", sx(all[place]));
    cross.setAttribute("visibility", "visible");
    readout.replaceChildren(...values(all[place]));
  }
  last();
  return h("figure", {
    class: "chart",
    tabindex: 0,
    "aria-label": `${title}, ${metric}: left and right arrow keys move along the steps`,
    onpointermove: (event) => {
      const box = picture.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * W;
      point(x0 + ((x - LEFT) / (W - LEFT - RIGHT)) * (x1 - x0));
    },
    onpointerleave: last,
    onblur: last,
    onkeydown: (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      point(all[Math.min(Math.max(place + way, 0), all.length - 1)]);
    },
  }, h("figcaption", {}, h("b", {}, title), h("span", { class: "quiet" }, metric), readout), picture);
}

// Which index version was searched since which step.
// segments: [{from, to, version, params_step, overlap}]
export function timeline(name, segments, colour) {
  const parts = segments.map(({ from, to, version, params_step: step, overlap }) => {
    const kept = typeof overlap === "number" ? `, keeps ${Math.round(100 * overlap)} % of the best blocks` : "";
    const title = `version ${version}, searched from step ${from}, params of step ${step}${kept}`;
    const part = h("span", { title }, h("span", {}, String(version)));
    part.style.flexGrow = to - from;
    return part;
  });
  const label = segments.map((s) => `version ${s.version} from step ${s.from}`).join(", ");
  return h("div", { class: `timeline ${colour}`, role: "img", "aria-label": `${name}: ${label}` }, parts);
}
