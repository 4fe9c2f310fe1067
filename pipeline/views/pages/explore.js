// The explorer: a list of records, and of the one that is open its text and where teacher and student look in it.
// Shape letters as everywhere: L layers, S steps, K words; layer 0 stands for the mixture of all. Cells are s · K + k.

const records = readData("explored");
const $ = (id) => document.getElementById(id);
const ROW = 56; // pixels, as in explore.css
const DARK = window.matchMedia("screen and (prefers-color-scheme: dark)"); // paper is white
const PHASES = {
  plain: "answered unaided",
  gold_shown: "written with the answer in sight",
  imported: "rationale from a file",
};

// Lightness changes evenly from one colour to the next, so that equal steps look equal and no hue has to be told apart.
const SEQUENTIAL = {
  light: ["#f4f5f3", "#d2e0e1", "#afccd2", "#8bb8c6", "#64a4bc", "#3b90b1", "#187aa3", "#096490", "#094e7b", "#0e3a63", "#11264b"],
  dark: ["#1d2329", "#223545", "#254863", "#255d7f", "#2b7297", "#3988ab", "#529db9", "#71b3c5", "#93c7d0", "#b9dbdd", "#e2eeea"],
};
// From what the student looks at less to what it looks at more: blue and orange, with nothing between them.
const DIVERGING = {
  light: ["#17518c", "#3c7ab2", "#76a2c9", "#b4cbde", "#f4f4f2", "#e4c2a1", "#d09054", "#b16117", "#803e04"],
  dark: ["#8fc7f5", "#5c9bcf", "#3971a1", "#284966", "#1f2429", "#643e1a", "#9b5f23", "#cf853f", "#f2b574"],
};

// ---------------------------------------------------------------------------------------------------------- numbers

/** Float16, as the store has it, from its 16 bits. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) {
    return sign * fraction * 2 ** -24;
  }
  return exponent === 31 ? NaN : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The layers of a look, each a Float64Array of S · K cells; the mixture stands in front of them. */
async function unpack(look, cells) {
  const packed = Uint8Array.from(atob(look.packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (bytes.length !== 2 * look.layers * cells) {
    throw new Error(`${bytes.length} bytes for ${look.layers} layers of ${cells} numbers`);
  }
  const layers = Array.from({ length: look.layers + 1 }, () => new Float64Array(cells));
  const weights = look.weights ?? new Array(look.layers).fill(1 / look.layers);
  for (let cell = 0, at = 0; cell < cells; cell += 1) {
    for (let layer = 0; layer < look.layers; layer += 1, at += 2) {
      const value = half((bytes[at + 1] << 8) | bytes[at]);
      layers[layer + 1][cell] = value;
      layers[0][cell] += weights[layer] * value;
    }
  }
  return { layers, weights, learned: look.weights !== null, highest: highest(layers.slice(1)) };
}

function highest(arrays) {
  let found = 0;
  for (const array of arrays) {
    for (const value of array) {
      found = Math.max(found, Math.abs(value));
    }
  }
  return found;
}

/** Three digits that count. */
function figure(value) {
  if (value === 0) {
    return "0";
  }
  const size = Math.abs(value);
  return size < 0.001 || size >= 1000 ? value.toExponential(2) : value.toPrecision(3);
}

function signed(value) {
  return value > 0 ? `+${figure(value)}` : figure(value).replace("-", "−");
}

/** 256 colours between those given, as CSS writes them. */
function shades(stops) {
  const parts = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, number) => {
    const place = (number / 255) * (parts.length - 1);
    const below = Math.min(Math.floor(place), parts.length - 2);
    const mixed = parts[below].map((part, channel) => Math.round(part + (parts[below + 1][channel] - part) * (place - below)));
    return { css: `rgb(${mixed.join(" ")})`, bright: 0.2126 * mixed[0] + 0.7152 * mixed[1] + 0.0722 * mixed[2] > 128 };
  });
}

const SHADES = {};
for (const mode of ["light", "dark"]) {
  SHADES[mode] = { plain: shades(SEQUENTIAL[mode]), change: shades(DIVERGING[mode]) };
}

function shade(value, top, kind) {
  const share = top > 0 ? value / top : 0;
  const place = kind === "change" ? (share + 1) / 2 : share;
  return SHADES[DARK.matches ? "dark" : "light"][kind][Math.round(255 * Math.min(1, Math.max(0, place)))];
}

// ------------------------------------------------------------------------------------------------------------ state

const haystack = records.map((record) =>
  [record.text, record.dataset, record.id, record.key, PHASES[record.phase]].join("\n").toLowerCase()
);
const trained = new Map(); // of each run that has students their seeds
for (const record of records) {
  for (const [run, students] of Object.entries(record.students ?? {})) {
    trained.set(run, [...new Set([...(trained.get(run) ?? []), ...Object.keys(students)])].sort((a, b) => a - b));
  }
}
const runs = [...trained.keys()];
const ofMatrix = runs.length > 0 && (runs.length > 1 || runs[0] !== $("name").textContent); // students of its points
const state = { record: -1, teacher: 0, student: 0, shared: false, change: false, step: null, word: null };
let shown = records.map((_, number) => number); // records that the search has found, in order
let open = null; // what belongs to the open record: its maps and the elements of its text
let asked = 0; // how often a record was opened, so that a slow one does not replace a later one

function lookText(which) {
  return which === 0 ? "mixture" : String(which);
}

/** Let the address say what is open. */
function keepAddress() {
  const record = records[state.record];
  const parts = { record: record.key.slice(0, 12), layer: lookText(state.teacher) };
  if (runs.length > 0) {
    Object.assign(parts, { student: lookText(state.student), ...(ofMatrix ? { point: state.run } : {}), seed: state.seed });
  }
  if (state.shared) {
    parts.scale = "shared";
  }
  if (state.change) {
    parts.change = "yes";
  }
  for (const name of ["step", "word"]) {
    if (state[name] !== null) {
      parts[name] = state[name] + 1;
    }
  }
  history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
}

/** Choose a student; of a run that does not have it, its first one. */
function chooseStudent(run, seed) {
  state.run = trained.has(run) ? run : runs[0];
  const seeds = trained.get(state.run) ?? [];
  state.seed = seeds.includes(seed) ? seed : seeds[0];
}

/** Open what the address says; what it says wrongly is passed over. */
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const counted = (name) => (/^[1-9]\d{0,5}$/.test(said.get(name) ?? "") ? Number(said.get(name)) : null);
  const key = said.get("record");
  const found = key ? records.findIndex((record) => record.key.startsWith(key)) : -1;
  state.teacher = counted("layer") ?? 0;
  state.student = counted("student") ?? 0;
  chooseStudent(said.get("point"), said.get("seed"));
  state.shared = said.get("scale") === "shared";
  state.change = said.get("change") === "yes";
  const step = counted("step");
  const word = counted("word");
  openRecord(Math.max(found, 0), step === null ? null : step - 1, word === null ? null : word - 1);
}

// ------------------------------------------------------------------------------------------------------------- list

const list = $("list");
const rows = element("div", { class: "rows", role: "presentation" });
list.append(rows);

/** The rows that can be seen, and a few around them. */
function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  const current = [];
  for (let place = first; place < last; place += 1) {
    const number = shown[place];
    const record = records[number];
    const row = element(
      "div",
      {
        class: "row", role: "option", id: `row-${number}`, "data-record": number, "aria-selected": String(number === state.record),
        "aria-setsize": shown.length, "aria-posinset": place + 1,
      },
      element("span", {}, record.text.slice(0, 160)),
      element("small", { class: "muted", title: "steps × words" }, summary(record))
    );
    row.style.top = `${place * ROW}px`;
    current.push(row);
  }
  rows.style.height = `${shown.length * ROW}px`;
  rows.replaceChildren(...current);
  const place = shown.indexOf(state.record);
  if (place >= first && place < last) {
    list.setAttribute("aria-activedescendant", `row-${state.record}`);
  } else {
    list.removeAttribute("aria-activedescendant");
  }
}

/** Data set and id, without saying the one twice. */
function nameOf(record) {
  return record.id.startsWith(record.dataset) ? record.id : `${record.dataset} ${record.id}`;
}

function summary(record) {
  const parts = [`${record.steps.length} × ${record.words.length}`];
  if (record.dataset) {
    parts.unshift(nameOf(record));
  }
  if (record.phase === "gold_shown") {
    parts.push("answer shown");
  }
  if (record.students) {
    parts.push("student");
  }
  return parts.join(" · ");
}

function search() {
  const terms = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = [];
  for (let number = 0; number < records.length; number += 1) {
    if (terms.every((term) => haystack[number].includes(term))) {
      shown.push(number);
    }
  }
  $("count").textContent = terms.length > 0 ? `${shown.length.toLocaleString("en")} found` : "";
  list.scrollTop = 0;
  drawRows();
}

/** Bring the open record's row into sight. */
function reveal() {
  const place = shown.indexOf(state.record);
  if (place >= 0) {
    const top = place * ROW;
    if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) {
      list.scrollTop = top < list.scrollTop ? top : top + ROW - list.clientHeight;
    }
  }
  drawRows();
}

function moveRecord(by) {
  if (shown.length === 0) {
    return;
  }
  const place = shown.indexOf(state.record);
  const next = place < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, place + by));
  openRecord(shown[next]);
}

// ------------------------------------------------------------------------------------------------------------- text

/** Steps as a numbered list in two parts, critical words marked; spans count code points, as in the store. */
function drawText(record) {
  const letters = Array.from(record.text);
  const steps = [];
  const marks = record.words.map(() => []);
  const pieces = (from, to) => {
    const made = [];
    let at = from;
    record.words.forEach(([start, end], word) => {
      const [first, last] = [Math.max(start, from), Math.min(end, to)];
      if (first < last) {
        const mark = element("mark", { "data-word": word }, letters.slice(first, last).join(""));
        made.push(letters.slice(at, first).join(""), mark);
        marks[word].push(mark);
        at = last;
      }
    });
    return [...made, letters.slice(at, to).join("")];
  };
  const parts = { Question: element("ol", { class: "steps" }), Rationale: element("ol", { class: "steps" }) };
  const put = (from, to, step) => {
    if (step === null && letters.slice(from, to).join("").trim() === "") {
      return;
    }
    // Line breaks around a step are between the steps; inside of one they stay.
    let [first, last] = [from, to];
    while (first < last && letters[first].trim() === "") first += 1;
    while (last > first && letters[last - 1].trim() === "") last -= 1;
    const line = element(
      "li",
      { class: step === null ? "outside" : null, "data-step": step },
      element("span", { class: "step-number", "aria-hidden": step === null ? "true" : null }, step === null ? "" : String(step + 1)),
      element("span", { class: "said" }, ...pieces(first, last))
    );
    parts[from < record.rationale ? "Question" : "Rationale"].append(line);
    if (step !== null) {
      steps[step] = line;
    }
  };
  let at = 0;
  record.steps.forEach(([start, end], step) => {
    put(at, start, null);
    put(start, end, step);
    at = end;
  });
  put(at, letters.length, null);
  $("text").replaceChildren(
    ...Object.entries(parts).flatMap(([name, part]) => [element("h3", { class: "part" }, name), part])
  );
  return { steps, marks, wordTexts: record.words.map(([start, end]) => letters.slice(start, end).join("")) };
}

// ------------------------------------------------------------------------------------------------------------- maps

/** What there is to look at of a record: the teacher, and a student before and after training. */
async function looksOf(record) {
  const cells = record.steps.length * record.words.length;
  const student = record.students?.[state.run]?.[state.seed];
  const name = ofMatrix ? `${state.run}, seed ${state.seed},` : "Student";
  const known = [
    { id: "teacher", name: "Teacher", side: "teacher", look: record.teacher },
    { id: "before", name: `${name} before training`, side: "student", look: student?.before },
    { id: "after", name: `${name} after training`, side: "student", look: student?.after },
  ];
  const there = known.filter(({ look }) => look !== undefined);
  return Promise.all(there.map(async ({ look, ...map }) => ({ ...map, ...(await unpack(look, cells)) })));
}

function chosenLayer(map) {
  return Math.min(state[map.side], map.layers.length - 1);
}

function cellsOf(map) {
  const layer = chosenLayer(map);
  if (map.id !== "changed") {
    return map.layers[layer];
  }
  const [before, after] = map.pair.map((one) => one.layers[layer]);
  return after.map((value, cell) => value - before[cell]);
}

/** The strongest colour stands for this number: of the layer, or of all; a student's two maps share it. */
function topOf(map) {
  if (map.id === "changed") {
    return highest(state.shared ? map.pair.flatMap((one) => one.layers) : [cellsOf(map)]);
  }
  const together = open.maps.filter((one) => one.side === map.side && one.id !== "changed");
  return Math.max(...together.map((one) => (state.shared ? one.highest : highest([cellsOf(one)]))));
}

/** A map with its bars and legend; colours come with `paint`. */
function drawMap(map, record) {
  const [steps, words] = [record.steps.length, record.words.length];
  map.cellElements = [];
  map.never = []; // whether the word comes after the step
  map.stepHeads = record.steps.map((_, step) => element("span", { class: "head step", role: "rowheader", "data-step": step }, String(step + 1)));
  map.wordHeads = open.text.wordTexts.map((word, at) =>
    element("span", { class: "head word", role: "columnheader", "data-word": at, title: word }, word.slice(0, 24))
  );
  const body = record.steps.flatMap(([start, end], step) => {
    const cells = record.words.map(([wordStart], word) => {
      const never = wordStart >= end;
      const cell = element("span", {
        class: never ? "cell never" : "cell", role: "gridcell", tabindex: step + word === 0 ? 0 : -1, "data-step": step, "data-word": word,
      });
      map.cellElements.push(cell);
      map.never.push(never);
      return cell;
    });
    const border = step > 0 && start >= record.rationale && record.steps[step - 1][0] < record.rationale;
    const row = element("div", { role: "row" }, map.stepHeads[step], ...cells);
    return border ? [element("div", { class: "border", role: "presentation" }), row] : [row];
  });
  const grid = element(
    "div",
    { class: "grid", role: "grid", "aria-label": `${map.name}: steps by words`, "data-map": map.id },
    element("div", { role: "row" }, element("span", { role: "columnheader" }, element("span", { class: "hidden-text" }, "step")), ...map.wordHeads),
    ...body
  );
  const width = words > 40 ? 0.75 : words > 24 ? 0.875 : words > 12 ? 1.125 : 1.375;
  grid.style.gridTemplateColumns = `auto repeat(${words}, ${width}rem)`;
  map.which = element("p", { class: "which" });
  map.lowest = element("span");
  map.scale = element("span", { class: "scale" });
  map.top = element("span");
  return element(
    "section",
    { class: `map ${map.id}`, "aria-label": map.name },
    element("h3", {}, map.name),
    map.which,
    map.id === "changed" ? element("p", { class: "layers" }, "blue where it looks less, orange where it looks more") : drawBars(map),
    element("div", { class: "scrolls" }, grid),
    element("div", { class: "legend" }, map.lowest, map.scale, map.top)
  );
}

/** How much each layer counts in the mixture; a bar chooses its layer. */
function drawBars(map) {
  const layers = map.layers.length - 1;
  const most = Math.max(...map.weights);
  map.bars = map.weights.map((weight, layer) => {
    const bar = element("span", { class: "bar", "data-layer": layer + 1, title: `layer ${layer + 1}: weight ${figure(weight)}` });
    bar.style.setProperty("--share", `${((100 * weight) / most).toFixed(1)}%`);
    return bar;
  });
  map.mixture = element("button", { type: "button", onclick: () => chooseLayer(map.side, 0) }, map.learned ? "Mixture" : "Mean");
  map.slider = element(
    "div",
    {
      class: "bars", role: "slider", tabindex: 0, "aria-label": `Layer, ${map.name.toLowerCase()}`, "aria-valuemin": 0,
      "aria-valuemax": layers,
      onpointerdown: (event) => pickLayer(event, map),
      onpointermove: (event) => event.buttons === 1 && pickLayer(event, map),
      onkeydown: (event) => {
        const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
        const to = by ? chosenLayer(map) + by : { Home: 0, End: layers }[event.key];
        if (to !== undefined && !event.ctrlKey && !event.metaKey && !event.altKey) {
          event.preventDefault();
          event.stopPropagation();
          chooseLayer(map.side, to);
        }
      },
    },
    ...map.bars
  );
  map.slider.style.maxWidth = `${0.75 * layers}rem`;
  return element("div", { class: "layers" }, map.mixture, map.slider);
}

function pickLayer(event, map) {
  const bar = document.elementFromPoint(event.clientX, event.clientY)?.closest(".bar");
  if (bar && map.bars.includes(bar)) {
    chooseLayer(map.side, Number(bar.dataset.layer));
  }
}

function chooseLayer(side, layer) {
  const most = Math.max(...open.maps.filter((map) => map.side === side).map((map) => map.layers.length - 1));
  state[side] = Math.min(Math.max(layer, 0), most);
  paint();
  keepAddress();
}

/** Give every map the colours of its chosen layer. */
function paint() {
  for (const map of open.maps) {
    const layer = chosenLayer(map);
    const kind = map.id === "changed" ? "change" : "plain";
    const top = topOf(map);
    map.strongest = top;
    map.cells = cellsOf(map);
    map.cellElements.forEach((cell, at) => {
      if (!map.never[at]) {
        cell.style.backgroundColor = shade(map.cells[at], top, kind).css;
      }
    });
    const all = map.layers.length - 1;
    const mixed = map.learned ? `mixture of ${all} layers` : `mean of ${all} layers`;
    map.which.textContent = layer === 0 ? mixed : `layer ${layer} of ${all}, weight ${figure(map.weights[layer - 1])}`;
    if (map.id !== "changed") {
      map.slider.setAttribute("aria-valuenow", layer);
      map.slider.setAttribute("aria-valuetext", map.which.textContent);
      map.mixture.setAttribute("aria-pressed", layer === 0);
      map.bars.forEach((bar, at) => bar.classList.toggle("chosen", at + 1 === layer));
    }
    map.lowest.textContent = kind === "change" ? signed(-top) : "0";
    map.top.textContent = kind === "change" ? signed(top) : figure(top);
    const stops = (kind === "change" ? DIVERGING : SEQUENTIAL)[DARK.matches ? "dark" : "light"];
    map.scale.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  }
  light(open.step, open.word);
}

// ------------------------------------------------------------------------------------------------ what is pointed at

/** Light up a step and a word, or either, in the text and in every map, and say their numbers. */
function light(step, word) {
  for (const one of open.litElements) {
    one.classList.remove("lit");
  }
  for (const mark of open.tinted) {
    mark.style.removeProperty("background-color");
    mark.style.removeProperty("color");
  }
  [open.step, open.word, open.litElements, open.tinted] = [step, word, [], []];
  const words = open.text.marks.length;
  if (step !== null) {
    open.litElements.push(open.text.steps[step], ...open.maps.map((map) => map.stepHeads[step]));
  }
  if (word !== null) {
    open.litElements.push(...open.text.marks[word], ...open.maps.map((map) => map.wordHeads[word]));
  }
  if (step !== null && word !== null) {
    open.litElements.push(...open.maps.map((map) => map.cellElements[step * words + word]));
  }
  for (const one of open.litElements) {
    one.classList.add("lit");
  }
  if (step !== null) {
    tint(step);
  }
  $("readout").textContent = said(step, word);
}

/** Colour the words of the text by how much the lit step looks at them, in the map that is pointed at. */
function tint(step) {
  const map = open.pointed;
  const kind = map.id === "changed" ? "change" : "plain";
  open.text.marks.forEach((marks, word) => {
    const at = step * open.text.marks.length + word;
    if (map.never[at]) {
      return;
    }
    const colour = shade(map.cells[at], map.strongest, kind);
    for (const mark of marks) {
      mark.style.backgroundColor = colour.css;
      mark.style.color = colour.bright ? "#10151a" : "#f6f8fa";
      open.tinted.push(mark);
    }
  });
}

function said(step, word) {
  const words = open.text.marks.length;
  const quoted = (at) => `“${open.text.wordTexts[at]}”`;
  if (step !== null && word !== null) {
    const at = step * words + word;
    if (open.maps[0].never[at]) {
      return `Step ${step + 1} ends before ${quoted(word)} (word ${word + 1} of ${words}) and cannot look at it`;
    }
    const numbers = open.maps.map((map) => `${map.short} ${map.id === "changed" ? signed(map.cells[at]) : figure(map.cells[at])}`);
    return `Step ${step + 1} looks at ${quoted(word)} (word ${word + 1} of ${words}): ${numbers.join(", ")}`;
  }
  const map = open.pointed;
  const most = (count, at, say) =>
    [...Array(count).keys()]
      .filter((one) => map.cells[at(one)] > 0)
      .sort((one, other) => map.cells[at(other)] - map.cells[at(one)])
      .slice(0, 3)
      .map((one) => `${say(one)} (${figure(map.cells[at(one)])})`)
      .join(", ") || "none";
  if (step !== null) {
    return `Step ${step + 1}, ${map.short}, looks most at ${most(words, (one) => step * words + one, quoted)}`;
  }
  if (word !== null) {
    const steps = open.text.steps.length;
    return `${quoted(word)}, ${map.short}, is looked at most by step ${most(steps, (one) => one * words + word, (one) => one + 1)}`;
  }
  return "";
}

/** Keep what is lit when the pointer goes elsewhere. */
function pin(step, word) {
  [state.step, state.word] = [step, word];
  light(step, word);
  keepAddress();
}

function pointedAt(target) {
  const found = target instanceof Element ? target.closest("[data-step], [data-word]") : null;
  if (found === null) {
    return null;
  }
  const number = (name) => (found.dataset[name] === undefined ? null : Number(found.dataset[name]));
  return { step: number("step"), word: number("word"), map: found.closest("[data-map]")?.dataset.map };
}

function point(event) {
  const found = open === null ? null : pointedAt(event.target);
  if (found === null) {
    return;
  }
  open.pointed = open.maps.find((map) => map.id === found.map) ?? open.pointed;
  light(found.step, found.word);
  if (found.map !== undefined) {
    showStep(found.step);
  }
}

/** Bring a step into sight in a text that is too long for its place; the page itself stays where it is. */
function showStep(step) {
  const [text, line] = [$("text"), step === null ? null : open.text.steps[step]];
  if (line) {
    const [place, found] = [text.getBoundingClientRect(), line.getBoundingClientRect()];
    text.scrollTop += Math.min(0, found.top - place.top) + Math.max(0, found.bottom - place.bottom);
  }
}

function unpoint(event) {
  if (open !== null && pointedAt(event.relatedTarget) === null) {
    light(state.step, state.word);
  }
}

for (const place of [$("text"), $("maps")]) {
  place.addEventListener("pointerover", point);
  place.addEventListener("pointerout", unpoint);
  place.addEventListener("click", (event) => {
    const found = pointedAt(event.target);
    if (found !== null) {
      const same = found.step === state.step && found.word === state.word;
      pin(same ? null : found.step, same ? null : found.word);
    }
  });
}

$("maps").addEventListener("focusin", (event) => {
  const cell = event.target.closest(".cell");
  if (cell === null) {
    return;
  }
  const map = (open.pointed = open.maps.find((one) => one.cellElements.includes(cell)));
  for (const one of map.cellElements) {
    one.tabIndex = one === cell ? 0 : -1;
  }
  const [step, word] = [Number(cell.dataset.step), Number(cell.dataset.word)];
  pin(step, word);
  showStep(step);
  cell.setAttribute("aria-label", $("readout").textContent);
});

function moveCell(cell, key) {
  const map = open.pointed;
  const [steps, words] = [open.text.steps.length, open.text.marks.length];
  let [step, word] = [Number(cell.dataset.step), Number(cell.dataset.word)];
  const moves = {
    ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -word], End: [0, words - 1 - word],
  };
  if (moves[key] === undefined) {
    return false;
  }
  step = Math.min(steps - 1, Math.max(0, step + moves[key][0]));
  word = Math.min(words - 1, Math.max(0, word + moves[key][1]));
  map.cellElements[step * words + word].focus();
  return true;
}

// ---------------------------------------------------------------------------------------------------- an open record

async function openRecord(number, step = null, word = null) {
  const record = records[number];
  const mine = (asked += 1);
  state.record = number;
  reveal();
  let looks;
  try {
    looks = await looksOf(record);
  } catch (error) {
    looks = [];
    console.error(`record ${record.key}: ${error}`);
  }
  if (mine !== asked) {
    return;
  }
  $("title").textContent = record.dataset ? nameOf(record) : `Record ${number + 1} of ${records.length.toLocaleString("en")}`;
  $("facts").replaceChildren(
    ...[
      record.answer === undefined ? null : `answer ${record.answer} · `,
      record.phase === undefined ? null : `${PHASES[record.phase] ?? record.phase} · `,
      `${record.steps.length} steps, ${record.words.length} words · `,
      element("code", { title: record.key }, record.key.slice(0, 16)),
    ].filter((part) => part !== null)
  );
  const text = drawText(record);
  open = { maps: looks, text, litElements: [], tinted: [], step: null, word: null, pointed: looks[0] };
  if (looks.length === 0) {
    $("maps").replaceChildren(element("p", { class: "notice" }, "This record could not be unpacked by this browser."));
    return;
  }
  const [, ...pair] = looks;
  if (state.change && pair.length === 2) {
    open.maps = [...looks, { ...pair[1], id: "changed", name: "What training changed", pair }];
  }
  for (const map of open.maps) {
    map.short = { teacher: "teacher", before: "student before", after: "student after", changed: "change" }[map.id];
  }
  $("maps").replaceChildren(...open.maps.map((map) => drawMap(map, record)));
  state.step = step !== null && step < text.steps.length ? step : null;
  state.word = word !== null && word < text.marks.length ? word : null;
  [open.step, open.word] = [state.step, state.word];
  drawControls(pair.length);
  $("record").scrollTop = 0;
  paint();
  showStep(state.step);
  keepAddress();
}

function reopen() {
  openRecord(state.record, state.step, state.word);
}

function toggle(name) {
  state[name] = !state[name];
  if (name === "change") {
    reopen();
  } else {
    drawControls(open.maps.length - 1);
    paint();
    keepAddress();
  }
}

function drawControls(students) {
  const button = (name, label) => element("button", { type: "button", id: `toggle-${name}`, "aria-pressed": String(state[name]), onclick: () => toggle(name) }, label);
  const focused = document.activeElement?.id;
  const choice = (id, label, values, chosen, choose) =>
    element(
      "label",
      {},
      `${label} `,
      element(
        "select",
        { id, onchange: (event) => { choose(event.target.value); reopen(); } },
        ...values.map((one) => element("option", { value: one, selected: one === chosen }, one))
      )
    );
  const parts = [button("shared", "One scale for all layers"), students > 0 ? button("change", "What training changed") : null];
  if (records[state.record].students) {
    const seeds = trained.get(state.run);
    parts.push(
      ofMatrix ? choice("point", "Point", runs, state.run, (run) => chooseStudent(run, state.seed)) : null,
      seeds.length > 1 ? choice("seed", "Seed", seeds, state.seed, (seed) => chooseStudent(state.run, seed)) : null,
      students > 0 ? null : element("span", { class: "muted" }, "This student was not asked about this record.")
    );
  }
  $("controls").replaceChildren(...parts.filter((part) => part !== null));
  if (focused && $("controls").querySelector(`#${CSS.escape(focused)}`)) {
    $(focused).focus();
  }
}

// --------------------------------------------------------------------------------------------------------- keyboard

const KEYS = {
  j: () => moveRecord(1),
  k: () => moveRecord(-1),
  ArrowDown: () => moveRecord(1),
  ArrowUp: () => moveRecord(-1),
  ArrowLeft: (event) => moveLayer(event.shiftKey ? "student" : "teacher", -1),
  ArrowRight: (event) => moveLayer(event.shiftKey ? "student" : "teacher", 1),
  m: () => ["teacher", "student"].forEach((side) => moveLayer(side, -Infinity)),
  s: () => toggle("shared"),
  d: () => runs.length > 0 && toggle("change"),
  g: () => open.maps[0].cellElements.find((cell) => cell.tabIndex === 0).focus(),
  "/": () => $("search").focus(),
  "?": () => $("help").showModal(),
};

function moveLayer(side, by) {
  const maps = open.maps.filter((map) => map.side === side);
  if (maps.length > 0) {
    chooseLayer(side, chosenLayer(maps[0]) + by);
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || open === null) {
    return;
  }
  const target = event.target;
  if (target === $("search")) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      list.focus();
      if (!shown.includes(state.record)) {
        moveRecord(1);
      }
    } else if (event.key === "Escape") {
      $("search").value = "";
      search();
      reveal();
      list.focus();
    }
    return;
  }
  if (target instanceof HTMLSelectElement) {
    return;
  }
  if (target.classList.contains("cell")) {
    if (event.key === "Escape") {
      pin(null, null);
      list.focus();
      return;
    }
    if (!event.shiftKey && moveCell(target, event.key)) {
      event.preventDefault();
      return;
    }
  }
  const does = KEYS[event.key];
  if (does && open.maps.length > 0) {
    event.preventDefault();
    does(event);
  }
});

// ------------------------------------------------------------------------------------------------------------ begin

document.body.classList.toggle("no-students", runs.length === 0);
$("search").addEventListener("input", search);
$("ask").addEventListener("click", () => $("help").showModal());
list.addEventListener("scroll", drawRows, { passive: true });
list.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row !== null) {
    openRecord(Number(row.dataset.record));
  }
});
window.addEventListener("resize", drawRows);
window.addEventListener("hashchange", () => location.hash.includes("=") && readAddress());
DARK.addEventListener("change", () => open !== null && open.maps.length > 0 && paint());
drawRows();
readAddress();
