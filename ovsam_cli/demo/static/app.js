// The page: what is marked, what the model says of it, and what is kept.

import * as api from "./api.js";
import { paintMask } from "./masks.js";
import { showBest, showExamples, showKept, showVocabulary } from "./panels.js";
import { Stage } from "./stage.js";

const find = (id) => document.getElementById(id);
const NOTHING = Object.freeze({ points: [], box: null });
const LAYER_SIDE = 1200; // pixels of a painted mask at least
const SLOW = 300; // milliseconds before waiting is shown

let limits, names, namesQuery;
let image = null; // {id, name, width, height, picture, blob}
let prompt = NOTHING, answer = null, chosen = 0; // of the object in hand
let kept = []; // {id, name, score, box, color, layer, imageName}
let past = [], future = [];
let isAsking = false;

const stage = new Stage(find("canvas"), find("stage"), {
  onPoint: ([x, y], label) => change(() => { prompt = { ...prompt, points: [...prompt.points, [x, y, label]] }; }),
  onBox: (box) => change(() => { prompt = { ...prompt, box }; }),
});

// --- state and its history ------------------------------------------------------------------

const takeState = () => ({ prompt, answer, chosen, kept });

function change(edit) {
  past.push(takeState());
  future = [];
  edit();
  refresh();
}

function step(from, to) {
  if (!from.length) return;
  to.push(takeState());
  ({ prompt, answer, chosen, kept } = from.pop());
  say(from === past ? "Undone." : "Done again.");
  refresh();
}

function refresh() {
  const isMarked = prompt.points.length > 0 || prompt.box !== null;
  if (!isMarked) answer = null;
  else if (!answer || answer.prompt !== prompt || answer.namesKey !== names.key) ask();
  render();
}

// --- asking the model -----------------------------------------------------------------------

async function ask() {
  if (isAsking) return; // the answer under way looks whether it is still wanted
  if (!prompt.box && !prompt.points.some(([, , label]) => label === 1)) {
    answer = null;
    return say("Add a point on the object, or a box.");
  }
  isAsking = true;
  const slow = setTimeout(() => wait("Looking …"), SLOW);
  const asked = prompt, of = image, key = names.key;
  try {
    const query = {
      names: key, box: asked.box,
      points: asked.points.map(([x, y]) => [x, y]), labels: asked.points.map(([, , label]) => label),
    };
    const found = await retry(() => api.label(of.id, { ...query, names: names.key }), of);
    if (asked === prompt && of === image) take(found, asked, key);
  } catch (error) {
    if (asked === prompt) complain(error);
  } finally {
    clearTimeout(slow);
    wait("");
    isAsking = false;
  }
  if ((asked !== prompt || key !== names.key) && image) refresh();
}

// What was put aside to make room is opened again from what the page has.
async function retry(work, of) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof api.GoneError)) throw error;
    of.id = (await api.openImage(of.blob, of.name)).id;
    if (namesQuery) await api.chooseNames(namesQuery);
    return work();
  }
}

function take(found, asked, key) {
  chosen = 0;
  answer = { ...found, prompt: asked, namesKey: key, color: nextColor() };
  if (!found.id) say("Nothing found there; try another point, or a box.");
  else {
    const [name, probability] = found.names[0];
    say(`${name}, ${Math.round(100 * probability)} %. Mask and names took ${Math.round(1000 * found.seconds)} ms.`);
  }
  render();
}

function nextColor() {
  const used = new Set(kept.map((one) => one.color));
  return limits.colors.find((color) => !used.has(color)) || limits.colors[kept.length % limits.colors.length];
}

function paint(one) {
  const { picture } = image, { fill } = limits;
  // Small images are shown larger, and their contours must not be blocks then.
  const scale = Math.max(1, LAYER_SIDE / Math.max(picture.width, picture.height));
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  one.layer ??= paintMask(one.segmentation, width, height, one.color,
    one.area_share > fill.large_share ? fill.large_opacity : fill.opacity);
  return one.layer;
}

// An answer to older marks is still shown while the new one is on its way, but not kept.
const isCurrent = () => Boolean(answer?.id) && answer.prompt === prompt && answer.namesKey === names.key;

function keep() {
  if (!isCurrent()) return;
  const [name, score] = answer.names[chosen];
  const one = { ...answer, name, score, layer: paint(answer), imageName: image.name, imageId: image.id };
  change(() => { kept = [...kept, one]; prompt = NOTHING; answer = null; });
  say(`Kept: ${name}. ${kept.length} in the list.`);
}

// --- images ---------------------------------------------------------------------------------

async function open(blob, name) {
  if (blob.size > limits.max_upload_bytes) {
    return complain(new Error(`${name}: ${(blob.size / 2 ** 20).toFixed(0)} MiB; at most ${limits.max_upload_bytes >> 20} MiB`));
  }
  wait("Reading the image …");
  try {
    const opened = await api.openImage(blob, name);
    const picture = await createImageBitmap(await api.readPicture(opened.id));
    image = { ...opened, picture, blob };
    prompt = NOTHING;
    answer = null;
    past = [];
    future = [];
    find("drop").hidden = true;
    find("other").hidden = false;
    stage.show(image);
    const notes = opened.warnings.length ? ` (${opened.warnings.join("; ")})` : "";
    say(`${opened.name}, ${opened.width} × ${opened.height}${notes}. Click on an object, or draw a box around it.`);
    showExamples(find("examples"), limits.examples, image.name, openExample);
    find("canvas").focus({ preventScroll: true });
  } catch (error) {
    complain(error);
  } finally {
    wait("");
  }
  render();
}

async function openExample(name) {
  try {
    await open(await api.readExample(name), name);
  } catch (error) {
    complain(error);
  }
}

function openFirst(files) {
  const file = [...(files || [])].find((one) => one.size);
  if (file) open(file, file.name || "pasted image.png");
}

// --- names ----------------------------------------------------------------------------------

async function chooseNames(query) {
  find("names-error").hidden = true;
  wait("Reading the names …");
  try {
    names = await api.chooseNames(query);
    namesQuery = query;
    showVocabulary(find("names-first"), names);
    say(`${names.count} names to choose from.`);
    if (image) refresh();
  } catch (error) {
    find("names-error").textContent = error.message;
    find("names-error").hidden = false;
  } finally {
    wait("");
  }
}

async function download() {
  try {
    const query = { names: names.key, objects: kept.map(({ id, name }) => ({ id, name })) };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await api.readCoco(query));
    link.download = "annotations.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say(`annotations.json has ${kept.length} objects.`);
  } catch (error) {
    complain(error);
  }
}

// --- showing --------------------------------------------------------------------------------

function render() {
  const here = kept.filter((one) => image && one.imageName === image.name);
  const current = answer?.id ? [answer] : [];
  if (image) {
    stage.update({
      layers: [...here, ...current].map(paint),
      chips: here.map((one) => ({ text: one.name, box: one.box, color: one.color })),
      points: prompt.points, box: prompt.box, color: answer?.color || nextColor(),
    });
  }
  const isMarked = prompt !== NOTHING && (prompt.points.length > 0 || prompt.box !== null);
  find("undo").disabled = !past.length;
  find("clear").disabled = !isMarked;
  find("keep").disabled = !isCurrent();
  find("download").disabled = !kept.length;
  find("kept-empty").hidden = kept.length > 0;
  find("count").hidden = !kept.length;
  find("count").textContent = kept.length;
  showBest(find("best"), find("quality"), answer, chosen, (place) => { chosen = place; render(); });
  showKept(find("kept"), kept, image?.name, (one) => change(() => { kept = kept.filter((other) => other !== one); }));
}

function say(text) {
  find("status").textContent = text;
  find("status").classList.remove("bad");
}

function complain(error) {
  find("status").textContent = error.message;
  find("status").classList.add("bad");
}

function wait(text) {
  find("busy").hidden = !text;
  find("busy-text").textContent = text;
}

function chooseTool(tool) {
  stage.choose(tool);
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
}

// --- events ---------------------------------------------------------------------------------

const clear = () => { if (prompt !== NOTHING) change(() => { prompt = NOTHING; }); };

function type(event) {
  if (event.target.closest("textarea, select, input, dialog")) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    return event.shiftKey ? step(future, past) : step(past, future);
  }
  if (event.altKey) return;
  const tools = { a: "positive", s: "negative", d: "box" };
  const key = event.key.toLowerCase();
  if (key in tools) chooseTool(tools[key]);
  else if (key === "escape") clear();
  else if (key === "?") find("help").showModal();
  else if (key === "enter" && !event.target.closest("button")) keep();
  else if ("12345".includes(key) && answer?.names?.[key - 1]) { chosen = key - 1; render(); }
}

function listen() {
  addEventListener("keydown", type);
  find("toolbar").addEventListener("click", (event) => {
    const tool = event.target.closest("[data-tool]")?.dataset.tool;
    if (tool) chooseTool(tool);
  });
  find("undo").addEventListener("click", () => step(past, future));
  find("clear").addEventListener("click", clear);
  find("keep").addEventListener("click", keep);
  find("download").addEventListener("click", download);
  find("help-button").addEventListener("click", () => find("help").showModal());
  find("file").addEventListener("change", (event) => { openFirst(event.target.files); event.target.value = ""; });
  find("other").addEventListener("click", () => find("file").click());
  addEventListener("paste", (event) => openFirst(event.clipboardData.files));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    openFirst(event.dataTransfer.files);
  });
  find("vocabulary").addEventListener("change", (event) => {
    const isOwn = event.target.value === "own";
    find("own").hidden = !isOwn;
    if (isOwn) find("own-names").focus();
    else if (event.target.value) chooseNames({ bundled: event.target.value });
  });
  find("names-form").addEventListener("submit", (event) => {
    event.preventDefault();
    chooseNames({ text: find("own-names").value });
  });
}

function fillVocabularies() {
  const select = find("vocabulary");
  const choices = limits.vocabularies.map((name) => new Option(name, name));
  if (!names.label) choices.unshift(new Option("given at the start", ""));
  select.replaceChildren(...choices, new Option("your own names …", "own"));
  select.value = names.label;
}

async function start() {
  try {
    limits = await api.readState();
  } catch (error) {
    return complain(error);
  }
  names = limits.names;
  find("model").textContent = `model ${limits.model}`;
  find("limits").textContent = `up to ${limits.max_upload_bytes >> 20} MiB and ${limits.max_pixels / 1e6} megapixels; it stays on this machine`;
  fillVocabularies();
  showVocabulary(find("names-first"), names);
  showExamples(find("examples"), limits.examples, "", openExample);
  listen();
  render();
  document.body.dataset.ready = "true";
}

start();
