// Draws the figures in the page's colours and lists rollouts. Text of models and problems enters the page as text nodes
// only (textContent, createTextNode): nothing here may ever build HTML from a string.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const style = getComputedStyle(document.documentElement);
const colour = (name) => (style.getPropertyValue("--" + name) || style.getPropertyValue("--soft")).trim();

const SPARSE = 12; // points; a line of no more is drawn with a mark at each
const BEYOND = 1e6; // how far an interval without a bound is drawn: past any axis

function translucent(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

// Plotly reads tags in labels; names are the user's own text and stay as they are.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- figures

// A point between gaps is no line: it would vanish, as a line of one point does.
function needsMarks(ys) {
  const there = (y) => y !== null && y !== undefined;
  return ys.filter(there).length <= SPARSE || ys.some((y, i) => there(y) && !there(ys[i - 1]) && !there(ys[i + 1]));
}

function heatTraces(trace, width, ink) {
  const grey = (i, j) => Boolean(trace.grey && trace.grey[i][j]);
  const pick = (wanted) => trace.z.map((row, i) => row.map((value, j) => (grey(i, j) === wanted ? value : null)));
  const z = pick(false);
  const roomy = width > 160 + (trace.text ? 58 : 42) * trace.x.length;
  // with less room the counts alone
  const words = trace.text && (roomy ? trace.text : width > 150 + 24 * trace.x.length && trace.text.map((row) => row.map((cell) => cell.split(" ")[0])));
  const cells = {
    type: "heatmap", x: trace.x.map(plain), y: trace.y.map(plain), zmin: 0, xgap: 2, ygap: 2, hoverongaps: false,
    customdata: trace.text, text: words || undefined, textfont: { color: colour("text"), size: 11 },
    texttemplate: trace.text ? (words ? "%{text}" : undefined) : roomy ? "%{z:.2f}" : undefined,
    hovertemplate: trace.hover + "<extra></extra>",
  };
  const found = [{
    ...cells, z, zmax: Math.max(...z.flat().filter((value) => value !== null), 0.01),
    colorscale: [[0, translucent(ink, 0.04)], [1, translucent(ink, 0.85)]], showscale: !roomy,
    colorbar: { thickness: 10, outlinewidth: 0, tickfont: { color: colour("soft") }, nticks: 5 },
  }];
  if (trace.grey && trace.grey.flat().some(Boolean)) {
    // where the matrix has a value or not: what is grey has too little behind it for one
    const flat = trace.z.map((row, i) => row.map((_, j) => (grey(i, j) ? 0 : null)));
    const pale = translucent(colour("soft"), 0.16);
    found.push({ ...cells, z: flat, zmax: 1, colorscale: [[0, pale], [1, pale]], showscale: false, textfont: { color: colour("soft"), size: 11 } });
  }
  return found;
}

function plotlyTraces(trace, width) {
  const ink = colour(trace.series);
  const common = { x: trace.x, y: trace.y, name: plain(trace.name), connectgaps: false, hovertemplate: "%{y:.4~g}", mode: "lines" };
  if (["line", "dashed", "area"].includes(trace.kind) && needsMarks(trace.y)) {
    Object.assign(common, { mode: "lines+markers", marker: { size: trace.kind === "line" ? 5 : 4, color: ink } });
  }
  if (trace.text) common.customdata = trace.text;
  switch (trace.kind) {
    case "faint":
      return [{ ...common, line: { color: translucent(ink, 0.35), width: 1 }, hoverinfo: "skip", hovertemplate: null }];
    case "dashed":
      return [{ ...common, line: { color: ink, width: 1.6, dash: "dash" } }];
    case "band": {
      const edge = { ...common, line: { width: 0 }, hoverinfo: "skip", hovertemplate: null };
      return [{ ...edge, y: trace.lo }, { ...edge, y: trace.hi, fill: "tonexty", fillcolor: translucent(ink, 0.16) }];
    }
    case "area":
      return [{ ...common, stackgroup: "all", line: { width: 0.5, color: ink }, fillcolor: translucent(ink, 0.72), hovertemplate: "%{y:.1%}" }];
    case "heat":
      return heatTraces(trace, width, ink);
    case "forest":
      return [{
        ...common, y: trace.y.map(([a, b]) => `${plain(a)}<br>– ${plain(b)}`), mode: "markers",
        marker: { size: 9, color: ink },
        error_x: {
          type: "data", symmetric: false, color: ink, thickness: 2, width: 4,
          array: trace.hi.map((hi, i) => (hi === null ? BEYOND : hi - trace.x[i])),
          arrayminus: trace.lo.map((lo, i) => (lo === null ? BEYOND : trace.x[i] - lo)),
        },
        customdata: trace.text.map((text, i) => [text, trace.lo[i], trace.hi[i]]),
        hovertemplate: trace.x.map((_, i) => {
          const [lo, hi] = ["lo", "hi"].map((end, c) => (trace[end][i] === null ? "unbounded" : `%{customdata[${c + 1}]:+.1%}`));
          return `%{x:+.1%}  [${lo}, ${hi}]<br>%{customdata[0]}<extra></extra>`;
        }),
      }];
    case "points":
    case "open": {
      if (!trace.hi) return [{ ...common, mode: "lines+markers", line: { color: ink, width: 2.2 }, marker: { size: 7, color: ink } }];
      const up = trace.hi.map((hi, i) => hi - trace.y[i]);
      const down = trace.lo.map((lo, i) => trace.y[i] - lo);
      const open = trace.kind === "open";
      return [{
        ...common,
        mode: open ? "markers" : "lines+markers",
        line: { color: ink, width: trace.dash ? 1.6 : 2.2, dash: trace.dash ? "dash" : "solid" },
        marker: { size: open ? 8 : 7, color: ink, symbol: open ? "diamond-open" : "circle", line: { width: 1.6, color: ink } },
        error_y: { type: "data", symmetric: false, array: up, arrayminus: down, color: translucent(ink, open ? 0.35 : 0.6), thickness: 1.4, width: 3 },
        ...(trace.xLo && {
          error_x: {
            type: "data", symmetric: false, color: translucent(ink, 0.35), thickness: 1.4, width: 3,
            array: trace.xHi.map((hi, i) => hi - trace.x[i]), arrayminus: trace.xLo.map((lo, i) => trace.x[i] - lo),
          },
        }),
        customdata: trace.text.map((text, i) => [plain(text), trace.lo[i], trace.hi[i], ...(trace.xLo ? [trace.xLo[i], trace.xHi[i]] : [])]),
        hovertemplate:
          "<b>%{customdata[0]}</b>" + (trace.xLo ? "<br>%{x:.3f}  [%{customdata[3]:.3f}, %{customdata[4]:.3f}]" : "") +
          "<br>%{y:.3f}  [%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
      }];
    }
    default:
      return [{ ...common, line: { color: ink, width: 2.2 } }];
  }
}

function draw(node, figure) {
  const [line, soft, text] = [colour("line"), colour("soft"), colour("text")];
  const coarse = matchMedia("(pointer: coarse)").matches;
  const font = { family: colour("sans"), size: 12, color: soft };
  const axis = { gridcolor: line, linecolor: line, zeroline: false, ticks: "", automargin: true, fixedrange: coarse, tickfont: font };
  const x = { ...axis, showgrid: false, title: { text: figure.x, font, standoff: 8 }, nticks: node.clientWidth < 420 ? 5 : 8, hoverformat: figure.xFormat || ",.0f", showspikes: false };
  const xs = figure.traces.flatMap((trace) => trace.x).filter((value) => typeof value === "number");
  if (figure.xWhole && Math.max(...xs) - Math.min(...xs) <= 8) Object.assign(x, { dtick: 1, tick0: 0, tickformat: "d" });
  if (figure.xType) Object.assign(x, { type: figure.xType, tickvals: figure.xTicks });
  const y = { ...axis, nticks: 6 };
  if (figure.yRange) Object.assign(y, { range: figure.yRange, autorangeoptions: {} });
  if (figure.yRange && figure.yRange[1] === null) Object.assign(y, { rangemode: "tozero", range: undefined });
  if (figure.yType) Object.assign(y, { type: figure.yType, dtick: 1, nticks: undefined });
  if (figure.traces.some((trace) => trace.kind === "heat")) {
    for (const side of [x, y]) Object.assign(side, { type: "category", showgrid: false, nticks: undefined, tickfont: { ...font, size: 11 } });
    Object.assign(y, { autorange: "reversed" });
  }
  if (figure.forest) {
    Object.assign(y, { type: "category", autorange: "reversed", showgrid: false, nticks: undefined, tickfont: { ...font, size: 11 } });
    const ends = figure.traces.flatMap((trace) => [...trace.lo, ...trace.hi, ...trace.x]);
    const known = [0, ...ends.filter((end) => end !== null)];
    const [least, most] = [Math.min(...known), Math.max(...known)];
    const widest = Math.max(-least, most);
    const room = 0.08 * (most - least) || 0.1;
    if (ends.includes(null)) Object.assign(x, { range: [least - room, most + room] }); // the unbounded ones end at the edge
    Object.assign(x, { showgrid: true, zeroline: true, zerolinecolor: soft, zerolinewidth: 1.5, hoverformat: "+.1%" });
    Object.assign(x, { tickformat: widest < 0.05 ? "+.1%" : "+.0%", nticks: 5 });
  }
  if (figure.id.startsWith("verdicts")) y.tickformat = ".0%";
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, showlegend: false,
    margin: { l: 36, r: 10, t: 10, b: 36 }, xaxis: x, yaxis: y, dragmode: coarse ? false : "zoom",
    // A box over all lines would hide a plot of few points.
    hovermode: figure.traces.some((trace) => ["points", "forest", "heat"].includes(trace.kind)) ? "closest" : "x unified",
    hoverlabel: { bgcolor: colour("card"), bordercolor: line, font: { ...font, color: text } },
    shapes: (figure.marks || []).map((at) => ({
      type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: line, width: 1, dash: "dot" },
    })),
  };
  Plotly.react(node, figure.traces.flatMap((trace) => plotlyTraces(trace, node.clientWidth)), layout, { displayModeBar: false, responsive: true });
}

function legend(node, figure) {
  const seen = new Map();
  // Where the last trace lies on top of the others, it is named first.
  for (const trace of figure.topFirst ? figure.traces.toReversed() : figure.traces) {
    if (["faint", "band", "forest", "heat"].includes(trace.kind)) continue;
    const entry = seen.get(trace.name);
    // One name for lines of several arms (the dashed ones): one entry, in no arm's colour.
    if (!entry) seen.set(trace.name, { kind: trace.kind, series: trace.series });
    else if (entry.series !== trace.series) entry.series = "any";
  }
  for (const [name, { kind, series }] of seen) {
    const entry = element("span", series);
    entry.append(element("i", kind), name);
    node.append(entry);
  }
  if ((figure.marks || []).length) node.append(element("span", "", "┊ a new iteration begins"));
}

function drawAll() {
  for (const figure of data.figures) {
    const node = document.querySelector(`[data-figure="${CSS.escape(figure.id)}"]`);
    if (node) draw(node, figure);
  }
}

for (const figure of data.figures) {
  const node = document.querySelector(`[data-legend="${CSS.escape(figure.id)}"]`);
  if (node) legend(node, figure);
}

// The library comes packed, a third of its size. What it unpacks to is the one script that the page's policy names.
async function load() {
  const node = document.getElementById("plotly");
  if (!node) return;
  if (typeof DecompressionStream === "undefined") {
    for (const plot of document.querySelectorAll(".plot")) plot.textContent = "This browser is too old to draw it (needed: one of 2023).";
    return;
  }
  const packed = Uint8Array.from(atob(node.textContent), (sign) => sign.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = element("script", "", await new Response(unpacked).text());
  document.head.append(script);
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}
load();

// ---- rollouts

const WORD = /^(?:\d+|[-+*/()=;:,]|no|back|yes|answer)$/;

// A search trace is coloured only where nearly every word belongs to one: "no" in plain prose is no dead end.
function isSearch(text) {
  const words = text.split(/\s+/).filter(Boolean).slice(0, 200);
  return words.length > 3 && words.filter((word) => WORD.test(word)).length >= 0.9 * words.length;
}

function modelText(text, className) {
  const node = element("div", "model " + (className || ""));
  node.dir = "auto";
  if (!isSearch(text)) {
    node.textContent = text;
    return node;
  }
  let [before, step, answered] = ["", null, false];
  for (const part of text.split(/(\s+)/)) {
    let kind = "";
    if (/^(?:no|back|yes|answer)$/.test(part)) kind = "w-" + part;
    else if (/^[-+*/()=;:,]$/.test(part)) kind = "w-sign";
    else if (before === "=" && /^\d+$/.test(part)) kind = "w-result";
    const word = kind ? element("span", kind, part) : document.createTextNode(part);
    // Lines break between steps ("7 - 3 = 4 ;"), not within them.
    if (/^\d+$/.test(part) && !step && !answered) node.append((step = element("span", "step")));
    if (/^w-(?!sign|result)/.test(kind)) step = null;
    if (part === "answer") answered = true;
    (step || node).append(word);
    if (part === ";") step = null;
    if (part.trim()) before = part;
  }
  return node;
}

function place(rollout) {
  return `iteration ${rollout.iteration + 1}, step ${rollout.step + 1}`;
}

function card(rollout) {
  const node = element("article");
  const facts = element("div", "facts " + (/^[a-z]+$/.test(rollout.verdict) ? rollout.verdict : ""));
  facts.append(element("b", "", rollout.verdict));
  const texts = [rollout.problem, data.names[rollout.branch] || rollout.branch, place(rollout)];
  if (rollout.rate !== undefined) texts.push(`solved ${Math.round(100 * rollout.rate)} % of ${rollout.seen} times`);
  else texts.push(`reward ${Number(rollout.reward).toFixed(2)}`);
  texts.push(`${rollout.tokens} tokens${rollout.cut ? ", cut off" : ""}`);
  for (const text of texts) facts.append(element("span", "", text));
  node.append(facts);
  if (rollout.prompt) node.append(modelText(rollout.prompt, "prompt"));
  node.append(modelText(rollout.text));
  if (rollout.hidden) node.append(element("div", "note", `… ${rollout.hidden.toLocaleString("en")} more characters are in the store`));
  const told = element("dl", "told");
  const rows = [["verifier", rollout.detail], ["gold", rollout.gold]];
  for (const [name, text] of rows) if (text) told.append(element("dt", "", name), element("dd", "", text));
  if (told.children.length) node.append(told);
  return node;
}

for (const name of ["experts", "samples"]) {
  const place = document.getElementById(name);
  if (place) place.append(...data[name].map(card));
}

const list = document.getElementById("rollouts");
if (list) {
  const PAGE = 12;
  const keys = {
    problem: (rollout) => rollout.problem,
    step: place,
    verdict: (rollout) => rollout.verdict,
    branch: (rollout) => data.names[rollout.branch] || rollout.branch,
  };
  const more = document.getElementById("more");
  let limit = PAGE;
  const selects = Object.fromEntries(Object.keys(keys).map((name) => [name, document.getElementById("filter-" + name)]));

  for (const [name, select] of Object.entries(selects)) {
    const counts = new Map();
    for (const rollout of data.rollouts) counts.set(keys[name](rollout), (counts.get(keys[name](rollout)) || 0) + 1);
    const values = [...counts.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    for (const value of values) {
      const option = element("option", "", `${value} (${counts.get(value)})`);
      option.value = value;
      select.append(option);
    }
    select.addEventListener("change", () => { limit = PAGE; show(); });
  }
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += 2 * PAGE; show(); });

  function show() {
    const chosen = data.rollouts.filter((rollout) =>
      Object.entries(selects).every(([name, select]) => !select.value || keys[name](rollout) === select.value));
    list.replaceChildren(...chosen.slice(0, limit).map(card));
    document.getElementById("shown").textContent =
      chosen.length ? `${Math.min(limit, chosen.length)} of ${chosen.length} shown` : "None of the sampled rollouts is like that.";
    more.hidden = chosen.length <= limit;
  }
  show();
}

// ---- a run that is followed: the page reads itself again, and its reader keeps their place

const fields = () => [...document.querySelectorAll("select[id]")];
const folds = () => [...document.querySelectorAll("details")];

function remembered() {
  return {
    version: data.version,
    scroll: scrollY,
    filters: Object.fromEntries(fields().map((field) => [field.id, field.value])),
    focus: document.activeElement?.id || "",
    open: folds().map((fold) => fold.open),
    shown: list ? list.children.length : 0,
  };
}

function restore(kept) {
  for (const field of fields()) {
    const value = kept.filters[field.id];
    if (value && [...field.options].some((option) => option.value === value)) {
      field.value = value;
      field.dispatchEvent(new Event("change"));
    }
  }
  folds().forEach((fold, i) => { fold.open = Boolean(kept.open[i]); });
  const more = document.getElementById("more");
  while (more && !more.hidden && list.children.length < kept.shown) more.click();
  if (kept.focus) document.getElementById(kept.focus)?.focus({ preventScroll: true });
  scrollTo(0, kept.scroll);
}

const kept = history.state;
if (kept) {
  history.replaceState(null, "");
  restore(kept);
}

if (data.version) {
  // Every 5 s, and up to a minute apart where nothing changes.
  const wait = kept?.version === data.version ? Math.min(2 * kept.wait, 60) : 5;
  let touched = 0;
  for (const event of ["pointermove", "pointerdown", "keydown", "wheel"]) {
    addEventListener(event, () => { touched = Date.now(); }, { passive: true });
  }
  const again = () => {
    // Not while the reader is at work on the page or has text selected: an open list and the selection would be gone.
    const busy = document.hidden || Date.now() - touched < 5000 || String(getSelection()) !== "";
    if (busy) {
      setTimeout(again, 1000);
      return;
    }
    history.replaceState({ ...remembered(), wait }, "");
    location.reload();
  };
  setTimeout(again, 1000 * wait);
}
