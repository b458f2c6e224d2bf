"use strict";
// Asks about one image at a time; nothing leaves the page but the file that the person saves.

const Z_95 = 1.959963984540054;

// E. B. Wilson 1927, J. Amer. Statist. Assoc. 22, p. 209-212; the same as lightning_gen.report.intervals.
function wilsonInterval(successes, trials, z = Z_95) {
  if (trials === 0) return [0, 1];
  const share = successes / trials;
  const scale = 1 + (z * z) / trials;
  const middle = (share + (z * z) / (2 * trials)) / scale;
  const half = (z / scale) * Math.sqrt((share * (1 - share)) / trials + (z * z) / (4 * trials * trials));
  return [
    successes === 0 ? 0 : Math.max(0, middle - half),
    successes === trials ? 1 : Math.min(1, middle + half),
  ];
}

const test = JSON.parse(document.getElementById("data").textContent);
const isReal = JSON.parse(atob(test.key)).map(Boolean);
let answers = [];
let startedAt = performance.now();

const byId = (id) => document.getElementById(id);
const uri = (index) => `data:image/png;base64,${test.images[index]}`;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function ask() {
  byId("ask").hidden = false;
  byId("result").hidden = true;
  byId("picture").src = uri(answers.length);
  byId("progress").value = answers.length;
  byId("count").textContent = `${answers.length + 1} / ${test.images.length}`;
  byId("stop").hidden = answers.length === 0;
  startedAt = performance.now();
}

function answer(saidReal) {
  if (byId("ask").hidden || answers.length === test.images.length) return;
  answers.push({ real: saidReal, seconds: Math.round(performance.now() - startedAt) / 1000 });
  if (answers.length === test.images.length) showResult();
  else ask();
}

function back() {
  if (byId("ask").hidden || !answers.length) return;
  answers.pop();
  ask();
}

function tally() {
  const count = (real, said) => answers.filter((given, at) => isReal[at] === real && given.real === said).length;
  return { realReal: count(true, true), realFake: count(true, false), fakeReal: count(false, true), fakeFake: count(false, false) };
}

function rates() {
  const { realReal, realFake, fakeReal, fakeFake } = tally();
  return [
    { key: "fooled", name: "generated images taken for real", successes: fakeReal, trials: fakeReal + fakeFake },
    { key: "real_taken_for_real", name: "real images taken for real", successes: realReal, trials: realReal + realFake },
    { key: "accuracy", name: "right answers", successes: realReal + fakeFake, trials: answers.length },
  ].map((rate) => ({ ...rate, interval: wilsonInterval(rate.successes, rate.trials) }));
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

function drawInterval({ successes, trials, interval: [low, high] }) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", "0 0 200 16");
  picture.setAttribute("aria-hidden", "true");
  const line = (kind, x1, x2, y1, y2) => {
    const made = document.createElementNS(space, "line");
    for (const [key, value] of Object.entries({ class: kind, x1, x2, y1, y2 })) made.setAttribute(key, value);
    picture.append(made);
  };
  line("rule", 0, 200, 8, 8);
  line("half", 100, 100, 0, 16);
  line("whole", 200 * low, 200 * high, 8, 8);
  if (trials) {
    const dot = document.createElementNS(space, "circle");
    for (const [key, value] of Object.entries({ class: "dot", cx: (200 * successes) / trials, cy: 8, r: 4 })) {
      dot.setAttribute(key, value);
    }
    picture.append(dot);
  }
  return picture;
}

function showResult() {
  const found = rates();
  const { realReal, realFake, fakeReal, fakeFake } = tally();
  byId("verdict").textContent = found[0].trials
    ? `${percent(found[0].successes / found[0].trials)} of the generated images were taken for real`
    : "No generated image was answered";
  byId("rates").replaceChildren(
    ...found.map((rate) =>
      element(
        "tr",
        { "data-rate": rate.key },
        element("th", { scope: "row" }, rate.name),
        element("td", {}, `${rate.successes} / ${rate.trials}`),
        element("td", { class: "bar-cell" }, drawInterval(rate)),
        element("td", {}, element("b", {}, rate.trials ? percent(rate.successes / rate.trials) : "–")),
        element("td", {}, `${percent(rate.interval[0])} to ${percent(rate.interval[1])}`),
      ),
    ),
  );
  const row = (name, ...counts) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...counts.map((count) => element("td", {}, String(count))));
  byId("confusion").replaceChildren(row("real", realReal, realFake), row("generated", fakeReal, fakeFake));
  const wrong = answers.map((given, at) => at).filter((at) => answers[at].real !== isReal[at]);
  byId("mistakes-title").textContent = wrong.length ? `Mistakes (${wrong.length})` : "No mistakes";
  byId("mistakes").replaceChildren(
    ...wrong.map((at) => {
      const text = isReal[at] ? "real, said generated" : "generated, said real";
      return element("li", {}, element("img", { src: uri(at), alt: text }), element("span", {}, text));
    }),
  );
  byId("ask").hidden = true;
  byId("result").hidden = false;
  byId("result").focus();
}

function download() {
  const record = {
    name: test.name,
    data: test.data,
    seed: test.seed,
    rates: Object.fromEntries(rates().map(({ key, successes, trials, interval }) => [key, { successes, trials, interval }])),
    answers: answers.map((given, at) => ({ image: at, is_real: isReal[at], said_real: given.real, seconds: given.seconds })),
  };
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(record, null, 1)}\n`], { type: "application/json" }));
  const link = element("a", { href: url, download: "turing_answers.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

byId("real").addEventListener("click", () => answer(true));
byId("fake").addEventListener("click", () => answer(false));
byId("stop").addEventListener("click", showResult);
byId("download").addEventListener("click", download);
byId("again").addEventListener("click", () => {
  answers = [];
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (key === "r" || key === "arrowleft") answer(true);
  else if (key === "g" || key === "f" || key === "arrowright") answer(false);
  else if (key === "backspace") back();
});
ask();
