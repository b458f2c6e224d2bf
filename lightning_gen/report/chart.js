"use strict";
// The curves of a board: score over images seen, a color for each entry and a line for each of its runs.

const CHART = { width: 400, height: 240, left: 46, right: 10, top: 22, bottom: 34 };
const chartState = new Map();

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function html(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function shortNumber(value) {
  const size = Math.abs(value);
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [unit, letter] of units) if (size >= unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  return String(Number(value.toPrecision(3)));
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(n * step);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of high / low > 300 ? [1] : high / low > 30 ? [1, 3] : [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

function axis(low, high, start, end, logarithmic) {
  const map = logarithmic ? Math.log : (value) => value;
  const [first, last] = [map(low), map(high)];
  return (value) => start + ((map(value) - first) / (last - first || 1)) * (end - start);
}

function bounds(values, logarithmic) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (logarithmic) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

function drawBoard(number) {
  const figure = document.getElementById(`curves-${number}`);
  const board = pageData.boards[number];
  const fits = new Map();
  for (const row of document.querySelectorAll(`#board-${number} tbody tr`)) {
    fits.set(row.cells[1].dataset.value, !row.hidden);
  }
  const entries = board.entries.map((entry, color) => ({ ...entry, color })).filter((entry) => fits.get(entry.name));
  const state = chartState.get(number) ?? { log: null, off: new Set() };
  chartState.set(number, state);
  const shown = entries.filter((entry) => !state.off.has(entry.color));
  const points = (shown.length ? shown : entries).flatMap((entry) => entry.runs.flat());
  figure.replaceChildren();
  if (!points.length) return;
  const values = points.map(([, value]) => value);
  const [lowest, highest] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const canLog = lowest > 0 && highest / lowest > 8;
  const log = canLog && (state.log ?? highest / lowest > 20);
  figure.append(chartTools(number, board, state, canLog, log));
  figure.append(chartPicture(board, shown, points, values, log));
  figure.append(chartLegend(number, figure, entries, state));
}

function chartTools(number, board, state, canLog, log) {
  const caption = board.total > board.entries.length ? `the first ${board.entries.length} of ${board.total} entries` : "";
  const tools = html("div", { class: "tools" }, html("span", {}, caption));
  if (canLog) {
    const box = html("input", { type: "checkbox" });
    box.checked = log;
    box.addEventListener("change", () => {
      state.log = box.checked;
      drawBoard(number);
      document.querySelector(`#curves-${number} input`).focus();
    });
    tools.append(html("label", {}, box, " logarithmic"));
  }
  return tools;
}

function chartPicture(board, entries, points, values, log) {
  const { width, height, left, right, top, bottom } = CHART;
  const [low, high] = bounds(values, log);
  const furthest = points.reduce((most, [seen]) => Math.max(most, seen), 1);
  const x = axis(0, furthest, left, width - right, false);
  const y = axis(low, high, height - bottom, top, log);
  const label = `${board.score} over images seen of ${entries.map((entry) => entry.name).join(", ")}`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of log ? logTicks(low, high) : linearTicks(low, high, 5)) {
    picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    picture.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, shortNumber(tick)));
  }
  picture.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  for (const tick of linearTicks(0, furthest, 4)) {
    picture.append(svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4 }));
    const anchor = x(tick) > width - right - 12 ? "end" : "middle";
    picture.append(svg("text", { x: x(tick), y: height - bottom + 16, "text-anchor": anchor }, shortNumber(tick)));
  }
  picture.append(svg("text", { x: left - 6, y: top - 10, "text-anchor": "start" }, board.score));
  picture.append(svg("text", { x: width - right, y: height - 3, "text-anchor": "end" }, "images seen"));
  for (const entry of entries) {
    for (const run of entry.runs) {
      const group = svg("g", { class: "run", "data-entry": entry.name });
      const path = run.map(([seen, value], at) => `${at ? "L" : "M"}${x(seen).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      if (run.length > 1) group.append(svg("path", { class: `line k${entry.color}`, d: path }));
      for (const [seen, value] of run.length > 1 ? run.slice(-1) : run) {
        const dot = svg("circle", { class: `f${entry.color}`, cx: x(seen), cy: y(value), r: 3.4 });
        dot.append(svg("title", {}, `${entry.name}: ${shortNumber(value)} at ${seen.toLocaleString("en")} images`));
        group.append(dot);
      }
      picture.append(group);
    }
  }
  return picture;
}

function chartLegend(number, figure, entries, state) {
  const legend = html("ul", { class: "legend" });
  for (const entry of entries) {
    const pressed = !state.off.has(entry.color);
    const button = html("button", { "aria-pressed": String(pressed), title: "show or hide" });
    button.append(html("i", { class: `f${entry.color}` }), entry.name);
    const light = (on) => {
      figure.classList.toggle("lit", on);
      for (const group of figure.querySelectorAll("g.run")) {
        group.classList.toggle("on", on && group.dataset.entry === entry.name);
      }
    };
    button.addEventListener("mouseenter", () => light(true));
    button.addEventListener("mouseleave", () => light(false));
    button.addEventListener("click", () => {
      if (!state.off.delete(entry.color)) state.off.add(entry.color);
      drawBoard(number);
      const again = [...figure.querySelectorAll(".legend button")].find((other) => other.textContent === entry.name);
      if (again) again.focus();
    });
    legend.append(html("li", {}, button));
  }
  return legend;
}

const pageData = JSON.parse(document.getElementById("data").textContent);
