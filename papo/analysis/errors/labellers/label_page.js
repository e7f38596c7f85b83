"use strict";
// Labels one item at a time. Text of the data enters the page only through textContent and value.

const page = JSON.parse(document.getElementById("label-data").textContent);
const categories = page.categories.map((category) => category.name);
const known = new Map(page.items.map((item, index) => [item.item, index]));
const storageKey = `${page.format}:${page.analysis}`;
const MAX_IDLE_SECONDS = 60;
const element = (id) => document.getElementById(id);

// Without a prototype no item id can meet an inherited property.
const emptyMap = () => Object.create(null);

let state = { labeller: "", labels: emptyMap(), seconds: emptyMap(), at: 0 };
let undoStack = [];
let storageWorks = true;
let exported = true;
let lastActivity = Date.now();
let lastTick = Date.now();

// --- progress that survives a reload ---------------------------------------------------------

function load() {
  let text = null;
  try {
    text = localStorage.getItem(storageKey);
    localStorage.setItem(storageKey, text === null ? "" : text);
  } catch (error) {
    storageFailed();
    return;
  }
  if (!text) return;
  try {
    const saved = JSON.parse(text);
    const labels = emptyMap();
    for (const [item, label] of Object.entries(saved.labels)) {
      if (known.has(item)) labels[item] = cleanLabel(label);
    }
    const seconds = emptyMap();
    for (const item of known.keys()) seconds[item] = Number(saved.seconds[item]) || 0;
    const at = Math.min(Math.max(0, Number(saved.at) || 0), page.items.length - 1);
    state = { labeller: String(saved.labeller), labels, seconds, at };
  } catch (error) {
    notice("Progress that this browser kept could not be read; labelling starts anew.");
  }
}

function save() {
  if (!storageWorks) return;
  try {
    localStorage.setItem(storageKey, JSON.stringify(state));
  } catch (error) {
    storageFailed();
  }
}

function storageFailed() {
  storageWorks = false;
  notice("This browser keeps no progress for this page: export before you close or reload it.");
}

function cleanLabel(label) {
  return {
    category: categories.includes(label.category) ? label.category : null,
    quote: String(label.quote ?? ""),
    note: String(label.note ?? ""),
  };
}

// --- labels ----------------------------------------------------------------------------------

function current() {
  return page.items[state.at];
}

function labelOf(item) {
  return state.labels[item] ?? { category: null, quote: "", note: "" };
}

function numLabelled() {
  return page.items.filter((entry) => labelOf(entry.item).category !== null).length;
}

function change(values, { merge = false } = {}) {
  const item = current().item;
  const last = undoStack[undoStack.length - 1];
  // Typing into one field is one step to undo, not one for each letter.
  const field = Object.keys(values)[0];
  if (!(merge && last && last.item === item && last.field === field && last.merge)) {
    undoStack.push({ item, before: labelOf(item), field, merge });
  }
  state.labels[item] = { ...labelOf(item), ...values };
  exported = false;
  save();
}

function choose(index) {
  if (index >= categories.length || labelOf(current().item).category === categories[index]) return;
  change({ category: categories[index] });
  const left = page.items.length - numLabelled();
  say(`${categories[index]} chosen. ${left === 0 ? "All items are labelled: export them." : `${left} to go.`}`);
  render();
}

function undo() {
  const step = undoStack.pop();
  if (!step) {
    say("Nothing to undo.");
    return;
  }
  state.labels[step.item] = step.before;
  exported = false;
  go(known.get(step.item));
  say("Undone.");
}

function go(index) {
  tick();
  state.at = Math.min(Math.max(0, index), page.items.length - 1);
  save();
  render();
  element("response").scrollTop = 0;
  say(`Item ${state.at + 1}: ${labelOf(current().item).category ?? "not labelled yet"}.`);
  if (element("item").getBoundingClientRect().top < 0) element("item").scrollIntoView();
}

function goToUnlabelled() {
  const count = page.items.length;
  for (let step = 1; step <= count; step += 1) {
    const index = (state.at + step) % count;
    if (labelOf(page.items[index].item).category === null) {
      go(index);
      return;
    }
  }
  say("All items are labelled: export them.");
}

// --- time spent: only while the page is seen and somebody does something ------------------------

function tick() {
  const now = Date.now();
  if (!document.hidden && now - lastActivity < MAX_IDLE_SECONDS * 1000) {
    const item = current().item;
    state.seconds[item] = (state.seconds[item] ?? 0) + (now - lastTick) / 1000;
  }
  lastTick = now;
}

function showTime() {
  tick();
  const seconds = Math.floor(state.seconds[current().item] ?? 0);
  element("timer").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

// --- what is on the screen -----------------------------------------------------------------------

function render() {
  const item = current();
  const label = labelOf(item.item);
  const labelled = numLabelled();
  element("position").textContent = `Item ${state.at + 1} of ${page.items.length}`;
  element("progress").value = labelled;
  element("labelled").textContent = `${labelled} of ${page.items.length} labelled`;
  element("question").textContent = item.question;
  element("reference").textContent = item.reference;
  element("pictures").replaceChildren(...item.images.map(picture));
  element("no-picture").hidden = item.images.length > 0;
  showResponse(item.response, label.quote);
  element("cut").hidden = item.characters_left_out === 0;
  element("cut").textContent = `${item.characters_left_out} more characters are left out.`;
  element("quote").value = label.quote;
  element("note").value = label.note;
  warnOfQuote();
  for (const [index, button] of [...element("categories").children].entries()) {
    button.setAttribute("aria-pressed", String(categories[index] === label.category));
  }
  showTime();
}

function picture(index, place, all) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "picture";
  const image = document.createElement("img");
  image.src = page.images[index];
  image.alt = `Picture ${place + 1} of ${all.length} of this question; press to enlarge`;
  button.append(image);
  button.addEventListener("click", enlarge);
  return button;
}

function enlarge() {
  element("pictures").classList.toggle("large");
}

function showResponse(text, quote) {
  const box = element("response");
  const start = quote === "" ? -1 : text.indexOf(quote);
  if (start < 0) {
    box.textContent = text;
    return;
  }
  const mark = document.createElement("mark");
  mark.textContent = quote;
  box.replaceChildren(text.slice(0, start), mark, text.slice(start + quote.length));
}

function warnOfQuote() {
  const { quote } = labelOf(current().item);
  element("quote-warning").hidden = quote === "" || current().response.includes(quote);
}

function say(text) {
  element("status").textContent = text;
}

function notice(text) {
  const line = document.createElement("p");
  line.className = "notice";
  line.textContent = text;
  element("notices").append(line);
}

// --- files -----------------------------------------------------------------------------------------

function exportedLabels() {
  tick();
  return {
    format: page.format,
    analysis: page.analysis,
    labeller: state.labeller.trim(),
    labels: page.items
      .filter((entry) => labelOf(entry.item).category !== null)
      .map((entry) => ({
        item: entry.item,
        ...labelOf(entry.item),
        seconds: Math.round(10 * (state.seconds[entry.item] ?? 0)) / 10,
      })),
  };
}

function exportFile() {
  if (state.labeller.trim() === "") {
    say("Enter your name first: the file says who labelled.");
    element("labeller").focus();
    return;
  }
  const labels = exportedLabels();
  const link = document.createElement("a");
  const plain = (text) => text.replace(/[^A-Za-z0-9_-]+/g, "_").slice(0, 60);
  link.download = `labels-${plain(page.analysis)}-${plain(labels.labeller)}.json`;
  link.href = URL.createObjectURL(new Blob([JSON.stringify(labels, null, 2)], { type: "application/json" }));
  link.click();
  URL.revokeObjectURL(link.href);
  exported = true;
  say(`${labels.labels.length} labels exported as ${link.download}.`);
}

function importText(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch (error) {
    say("Not imported: the file is not JSON.");
    return;
  }
  const problem = problemOf(file);
  if (problem) {
    say(`Not imported: ${problem}`);
    return;
  }
  if (state.labeller.trim() === "") state.labeller = file.labeller;
  let added = 0;
  for (const label of file.labels) {
    if (labelOf(label.item).category === null) {
      state.labels[label.item] = cleanLabel(label);
      state.seconds[label.item] = (state.seconds[label.item] ?? 0) + (Number(label.seconds) || 0);
      added += 1;
    }
  }
  undoStack = [];
  exported = false;
  save();
  element("labeller").value = state.labeller;
  render();
  say(`${added} labels imported; ${file.labels.length - added} were labelled here already and stay as they are.`);
}

function problemOf(file) {
  if (file === null || typeof file !== "object" || file.format !== page.format || !Array.isArray(file.labels)) {
    return `it is no export of this kind of page (format ${page.format}).`;
  }
  if (file.analysis !== page.analysis) return "it belongs to another analysis.";
  const name = state.labeller.trim();
  if (typeof file.labeller !== "string") return "it does not say who labelled.";
  if (name !== "" && file.labeller !== name) return `it was labelled by ${file.labeller}, this page by ${name}.`;
  const wrong = file.labels.find((label) => !known.has(label?.item) || !categories.includes(label.category));
  return wrong === undefined ? null : "it names an item or a category that this page does not have.";
}

// --- keyboard and pointer ----------------------------------------------------------------------------

const keys = {
  n: () => go(state.at + 1),
  ArrowRight: () => go(state.at + 1),
  p: () => go(state.at - 1),
  ArrowLeft: () => go(state.at - 1),
  Enter: goToUnlabelled,
  u: undo,
  z: enlarge,
  t: () => element("note").focus(),
  "?": () => element("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  const target = event.target;
  if (target.matches("textarea, input")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  // A focused button or link keeps its own Enter.
  if (event.key === "Enter" && target.matches("button, a, summary")) return;
  if (/^[1-9]$/.test(event.key)) {
    choose(Number(event.key) - 1);
  } else if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    keys[event.key]();
  }
});

function quoteSelection() {
  const selection = getSelection();
  if (selection.rangeCount === 0 || selection.isCollapsed) return;
  const range = selection.getRangeAt(0);
  const box = element("response");
  if (!box.contains(range.startContainer) || !box.contains(range.endContainer)) return;
  const quote = range.toString().trim().slice(0, 2000);
  if (quote === "") return;
  selection.removeAllRanges();
  change({ quote });
  render();
  say("Quoted.");
}

element("response").addEventListener("pointerup", () => setTimeout(quoteSelection));
element("response").addEventListener("touchend", () => setTimeout(quoteSelection));
element("quote").addEventListener("input", (event) => {
  change({ quote: event.target.value }, { merge: true });
  showResponse(current().response, event.target.value);
  warnOfQuote();
});
element("note").addEventListener("input", (event) => change({ note: event.target.value }, { merge: true }));
element("labeller").addEventListener("input", (event) => {
  state.labeller = event.target.value;
  save();
});
for (const [id, action] of [
  ["next", () => go(state.at + 1)],
  ["previous", () => go(state.at - 1)],
  ["undo", undo],
  ["unlabelled", goToUnlabelled],
  ["export", exportFile],
  ["show-help", () => element("help").showModal()],
  ["close-help", () => element("help").close()],
]) {
  element(id).addEventListener("click", action);
}
for (const [index, button] of [...element("categories").children].entries()) {
  button.addEventListener("click", () => choose(index));
}
element("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) importText(await file.text());
  event.target.value = "";
});

for (const kind of ["keydown", "pointermove", "pointerdown", "wheel"]) {
  document.addEventListener(kind, () => {
    tick();
    lastActivity = Date.now();
  }, { passive: true });
}
document.addEventListener("visibilitychange", () => {
  // The time up to now belongs to how the page was before; hidden time is dropped.
  lastTick = Date.now();
  if (document.hidden) save();
});
addEventListener("storage", (event) => {
  if (event.key !== storageKey) return;
  load();
  render();
  say("Labels changed in another window.");
});
addEventListener("beforeunload", (event) => {
  if (!storageWorks && !exported) event.preventDefault();
});

load();
element("labeller").value = state.labeller;
element("progress").max = page.items.length;
render();
setInterval(showTime, 1000);
