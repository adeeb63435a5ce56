// Shows two responses and sends answers. All texts are set as text, never as HTML.
"use strict";

const settings = JSON.parse(document.body.dataset.settings);
const $ = (id) => document.getElementById(id);
const KEYS = { 1: "first", 2: "second", 0: "tie", b: "bad", s: "skip" };
const NAME = "rlaif-name", TOKEN = "rlaif-token", UNSENT = "rlaif-unsent";

let name = "";
let items = []; // the pair on the page, then the next ones
let last = null; // the answer that can be taken back
let counts = { name: "", answered: 0, left: 0 };
let queue = read(UNSENT) || []; // requests that the server has not confirmed, in order
let sending = false;
let shownAt = 0;
let shownId = null;
let pending = null; // the side whose strength is asked for
let differences = false;
let timer = null;

function read(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}

function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(TOKEN, JSON.stringify(found));
    history.replaceState(null, "", location.pathname); // out of the address bar and the history
  }
  return read(TOKEN);
}

let token = null;

async function call(path, body) {
  const options = { headers: { Authorization: `Bearer ${token}` } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const content = await response.json();
  if (!response.ok) throw Object.assign(new Error(content.error), { status: response.status });
  return content;
}

function tell(text) {
  $("notice").textContent = text || "";
  $("notice").hidden = !text;
}

// --- Requests: sent one after another, and again until the server has confirmed them ---

function enqueue(path, body) {
  queue.push({ path, body: { ...body, annotator: name, request: newId() } });
  sessionStorage.setItem(UNSENT, JSON.stringify(queue));
  send();
}

function newId() { // crypto.randomUUID needs a secure context, which a page on another machine's address is not
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (x) => x.toString(16).padStart(2, "0")).join("");
}

async function send() {
  if (sending) return;
  sending = true;
  for (let wait = 500; queue.length; ) {
    const { path, body } = queue[0];
    try {
      const state = await call(path, body);
      tell("");
      finish(body.annotator === name ? state : null); // another person may have come meanwhile
      if (path === "api/undo") $("status").textContent = "Your last answer is taken back.";
      wait = 500;
    } catch (error) {
      if (error.status === 401) {
        tell(`Your last answer is not saved yet: ${error.message}`);
        break;
      }
      if (error.status >= 400 && error.status < 500) { // such as an answer that another window has given
        finish(null);
        tell(error.message);
        await load();
      } else {
        const reason = error.status ? error.message : "the server does not answer";
        tell(`Your last answer is not saved yet: ${reason}. Trying again ...`);
        await pause(wait);
        wait = Math.min(2 * wait, 5000);
      }
    }
  }
  sending = false;
}

function finish(state) {
  queue.shift();
  sessionStorage.setItem(UNSENT, JSON.stringify(queue));
  if (state) update(state);
}

async function load() {
  const annotator = name;
  for (let wait = 500; annotator === name; wait = Math.min(2 * wait, 5000)) {
    try {
      const state = await call("api/items", { annotator });
      if (annotator === name) update(state);
      return;
    } catch (error) {
      if (error.status === 422) ask();
      tell(error.status ? error.message : "The server does not answer. Trying again ...");
      if (error.status) return;
      await pause(wait);
      tell("");
    }
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// --- Items ---

function update(state) {
  const answered = new Set(queue.map((entry) => entry.path === "api/answers" && entry.body.assignment));
  const undoing = queue.some((entry) => entry.path === "api/undo"); // the next pair is the one that comes back
  items = undoing ? [] : state.items.filter((item) => !answered.has(item.id));
  last = state.last;
  counts = state;
  if (state.judge) $("status").textContent = state.judge;
  show();
}

function show() {
  const item = items[0];
  const done = !item && !queue.length;
  const wasDone = !$("done").hidden;
  $("pair").hidden = !item;
  $("answers").hidden = !item && !$("status").textContent;
  $("done").hidden = !done;
  $("differences").hidden = !item;
  $("undo").hidden = !settings.undo || findLast() === null;
  $("counts").textContent = `${counts.name}: ${counts.answered} answered, ${counts.left} left for you`;
  $("rename").hidden = false;
  if (done && !wasDone) $("done-title").focus();
  if (!item) {
    $("choices").hidden = $("strengths").hidden = true; // what is left is the status, such as the judge's opinion
    shownId = null;
    return;
  }
  if (item.id === shownId) return;
  shownId = item.id;
  shownAt = performance.now();
  if (counts.answered < 2) $("instructions").open = counts.answered === 0; // for the first answer of a person
  pending = null;
  showPrompt(item.prompt);
  for (const side of [0, 1]) {
    showText($(`response-${side + 1}`), [[item.responses[side], false]]);
    $(`flag-${side + 1}`).hidden = !item.names_itself[side];
  }
  for (const pane of document.querySelectorAll(".scroll")) pane.scrollTop = 0;
  if (matchMedia("(max-width: 700px)").matches) scrollTo(0, 0);
  $("pair").classList.remove("fresh");
  void $("pair").offsetWidth; // starts the animation again
  $("pair").classList.add("fresh");
  $("prompt-title").focus({ preventScroll: true });
  enable();
  if (differences) mark();
}

function showPrompt(turns) {
  const prompt = $("prompt");
  prompt.replaceChildren();
  for (const [speaker, text] of turns) {
    if (speaker) {
      const title = document.createElement("p");
      title.className = "speaker";
      title.textContent = speaker;
      prompt.append(title);
    }
    const content = document.createElement("div");
    content.textContent = text;
    prompt.append(content);
  }
}

function showText(place, segments) {
  place.replaceChildren(
    ...segments.map(([text, changed]) => {
      const part = document.createElement(changed ? "mark" : "span");
      part.textContent = text;
      return part;
    })
  );
}

async function mark() {
  const id = shownId;
  try {
    const found = await call(`api/differences/${id}`);
    if (id === shownId && differences) found.forEach((part, side) => showText($(`response-${side + 1}`), part));
  } catch (error) {
    tell(error.status ? error.message : "The server does not answer.");
  }
}

function toggleDifferences() {
  differences = !differences;
  $("differences").setAttribute("aria-pressed", String(differences));
  if (!items[0]) return;
  if (differences) mark();
  else items[0].responses.forEach((text, side) => showText($(`response-${side + 1}`), [[text, false]]));
}

// --- Answers ---

function enable() {
  clearTimeout(timer);
  const left = settings.min_seconds - (performance.now() - shownAt) / 1000;
  const wait = left > 0;
  for (const button of document.querySelectorAll("#choices button, #strengths [data-strength]")) button.disabled = wait;
  $("choices").hidden = pending !== null;
  $("strengths").hidden = pending === null;
  if (wait) timer = setTimeout(enable, 1000 * left + 20);
}

function choose(choice) {
  if (!items[0] || document.querySelector("#choices button").disabled) return;
  if (settings.strength && (choice === "first" || choice === "second")) {
    pending = choice;
    $("strength-title").textContent = `How much better is response ${choice === "first" ? 1 : 2}?`;
    enable();
    $("strengths").querySelector("button").focus();
    return;
  }
  answer(choice, null);
}

function answer(choice, strength) {
  const item = items.shift();
  const seconds = (performance.now() - shownAt) / 1000;
  $("status").textContent = "";
  enqueue("api/answers", { assignment: item.id, choice, strength, seconds });
  counts = { ...counts, answered: counts.answered + 1, left: counts.left - 1 };
  show();
}

function findLast() { // the last answer once the server has confirmed everything
  const answers = last === null ? [] : [last];
  for (const { path, body } of queue.filter((entry) => entry.body.annotator === name)) {
    if (path === "api/undo") answers.pop();
    else answers.push(body.assignment);
  }
  return answers.length ? answers.at(-1) : null;
}

function undo() {
  const assignment = findLast();
  if (!settings.undo || assignment === null) return;
  items = []; // the next key is for the pair that comes back, not for this one
  enqueue("api/undo", { assignment });
  show();
}

// --- Names, keys and scrolling ---

function ask() {
  $("who").hidden = false;
  for (const id of ["pair", "answers", "done", "undo", "differences", "rename"]) $(id).hidden = true;
  $("counts").textContent = $("status").textContent = "";
  $("name").value = name;
  $("name").select();
  name = "";
  items = [];
  last = shownId = null;
}

async function start(chosen) {
  name = chosen;
  $("who").hidden = true;
  if (queue.length) await send();
  await load();
}

$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = $("name").value.trim();
  if (!chosen) return;
  localStorage.setItem(NAME, chosen);
  sessionStorage.setItem(NAME, JSON.stringify(chosen));
  start(chosen);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches("input") || $("help").open) return;
  const key = event.key.toLowerCase();
  if (key === "?") $("help").showModal();
  else if (key === "u") undo();
  else if (key === "d") toggleDifferences();
  else if (pending && key === "escape") cancelStrength();
  else if (pending && ["1", "2", "3"].includes(key)) answer(pending, Number(key));
  else if (!pending && key in KEYS) choose(KEYS[key]);
  else return;
  event.preventDefault();
});

function cancelStrength() {
  pending = null;
  enable();
  $("prompt-title").focus({ preventScroll: true });
}

// The second click of a double click would answer the next pair, which nobody has read.
function onClick(button, action) {
  button.addEventListener("click", (event) => {
    if (event.detail <= 1) action();
  });
}

for (const button of document.querySelectorAll("[data-choice]")) onClick(button, () => choose(button.dataset.choice));
for (const button of document.querySelectorAll("[data-strength]")) {
  onClick(button, () => answer(pending, Number(button.dataset.strength)));
}
$("back").addEventListener("click", cancelStrength);
$("undo").addEventListener("click", undo);
$("rename").addEventListener("click", ask);
$("differences").addEventListener("click", toggleDifferences);
$("show-help").addEventListener("click", () => $("help").showModal());

const panes = [$("response-1"), $("response-2")];
let leader = null; // the pane that a person scrolls
for (const pane of panes) {
  for (const kind of ["pointerdown", "wheel", "touchstart", "keydown", "focus"]) {
    pane.addEventListener(kind, () => (leader = pane), { passive: true });
  }
  pane.addEventListener("scroll", () => {
    if (pane !== leader) return;
    const other = panes.find((x) => x !== pane);
    const range = pane.scrollHeight - pane.clientHeight;
    other.scrollTop = range > 0 ? (pane.scrollTop / range) * (other.scrollHeight - other.clientHeight) : 0;
  }, { passive: true });
}

addEventListener("beforeunload", (event) => {
  if (queue.length) event.preventDefault();
});
function begin() {
  token = takeToken();
  if (!token) return tell("Open the URL that the command printed: it has the token.");
  tell("");
  const known = name || read(NAME) || settings.name || localStorage.getItem(NAME); // first what was typed in this tab
  if (known) start(known);
  else ask();
}

addEventListener("hashchange", begin); // the URL was pasted into this tab
begin();
