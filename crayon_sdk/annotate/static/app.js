"use strict";

const PAGE = 24;
const WORDS = ["yes", "no", "unsure"];
const PANELS = {
  original: "Original",
  overlaid: "Highlight Overlaid",
  orange: "Highlight in Orange",
  red: "Highlight in Red",
};

const state = {
  session: null,
  person: "",
  panels: storedPanels(),
  view: "single", // or "grid"
  queue: [], // tasks that are here, in order; the first is the present one
  past: [], // {task, uid, answer}, answered on this page
  at: null, // place in `past` while one looks back, else null
  cells: [], // {task, answer} of the page of the grid
  pages: [], // pages of the grid that were submitted: [{task, uid, answer}]
  shownAt: 0,
  times: [],
  progress: {}, // kind: {answered, left}
  foresight: {}, // kind: {words, enough}, where there is something to say
  looking: null, // the timer to look again at what is worked out meanwhile
  introduced: new Set(), // kinds of tasks that one has been told about
  filling: null,
  dry: false, // whether the server had nothing when it was asked last
  lost: "",
};

const outbox = new Outbox({ onProgress: setProgressOf, onTrouble: showTrouble, onLost: showLost });

function storedPanels() {
  const known = (localStorage.getItem("crayon.panels") || "").split(" ").filter((panel) => panel in PANELS);
  return known.length > 0 ? known : ["original", "overlaid", "orange"];
}

// --- what is shown ------------------------------------------------------------------------

function showOnly(id) {
  for (const main of document.querySelectorAll("main")) {
    main.hidden = main.id !== id;
  }
}

function panelsOf(task) {
  if (task.kind === "neuron") {
    return Array.from({ length: task.pictures }, (_, number) => ({ panel: "patch", number, title: "" }));
  }
  const chosen = Object.keys(PANELS).filter((panel) => state.panels.includes(panel));
  const shows = task.kind === "spot" ? "Bright Spot" : "Highlight";
  return chosen.map((panel) => ({ panel, number: 0, title: PANELS[panel].replace("Highlight", shows) }));
}

/** Pictures of a task, fetched and decoded before they are needed. */
function figuresOf(task) {
  const wanted = panelsOf(task).map(({ panel, number }) => `${panel}${number}`).join(" ");
  if (task.wanted !== wanted) {
    task.wanted = wanted;
    task.figures = panelsOf(task).map(({ panel, number, title }) => {
      const alt = title || `Picture ${number + 1} of ${task.pictures}, with a red rectangle`;
      const image = make("img", { alt, src: pictureOf(task, number, panel, "large"), decoding: "sync" });
      image.decode().catch(() => image.classList.add("broken"));
      const figure = make("figure", { className: panel }, image);
      if (title) {
        figure.append(make("figcaption", { textContent: title }));
      }
      return figure;
    });
  }
  return task.figures;
}

function show() {
  if (state.view === "grid") {
    showGrid();
    return;
  }
  const past = state.at === null ? null : state.past[state.at];
  const task = past ? past.task : state.queue[0];
  if (!task) {
    showPause();
    return;
  }
  if (isNew(task)) {
    showTurn(task);
    return;
  }
  showOnly("single");
  $("question").textContent = task.question;
  $("stage").replaceChildren(...figuresOf(task));
  $("stage").className = task.kind === "neuron" ? "patches" : "";
  const said = past ? past.answer : task.said;
  $("said").textContent = said ? `You said ${said}. Answer again to change it.` : "";
  state.shownAt = performance.now();
  showFacts();
}

/** Whether it is of another kind than what was asked so far: nobody is to answer before they know. */
function isNew(task) {
  if (state.introduced.size === 0) {
    state.introduced.add(task.kind); // the first question speaks for itself
  }
  return !state.introduced.has(task.kind);
}

/** The kind of what is on the screen, or of what comes. */
function currentKind() {
  const past = state.at === null ? null : state.past[state.at];
  const here = past ? past.task : state.cells.length > 0 ? state.cells[0].task : state.queue[0];
  return here ? here.kind : Object.keys(state.session.kinds).pop();
}

function total(what) {
  return Object.values(state.progress).reduce((sum, each) => sum + each[what], 0);
}

function count(kind, step) {
  const now = state.progress[kind];
  now.answered = Math.max(now.answered + step, 0);
  now.left = Math.max(now.left - step, 0);
}

function showTurn(task) {
  showOnly("turn");
  state.times = [];
  const { left } = state.progress[task.kind];
  $("turn-title").textContent = `Next: ${left} ${MANY[task.kind]}`;
  $("turn-text").textContent = describeTask(task.kind);
  $("turn-go").focus();
  showFacts();
}

function goOn() {
  state.introduced.add(currentKind());
  show();
}

function showPause() {
  showOnly("pause");
  const waits = total("left") > 0;
  if (waits && !state.dry) { // quicker than the server: what comes next is on its way
    $("pause-title").textContent = "One moment";
    $("pause-text").textContent = "The next ones are on their way.";
  } else {
    $("pause-title").textContent = waits ? "Nothing for you at the moment" : "All done. Thank you!";
    $("pause-text").textContent = waits
      ? `Others have the remaining ${total("left")} in hand. This page looks again by itself.`
      : `You answered ${total("answered")}. You can close this page.`;
  }
  $("pause-undo").hidden = total("answered") === 0;
  showFacts();
}

function showFacts() {
  const kind = currentKind();
  const { answered, left } = state.progress[kind];
  $("bar").max = Math.max(answered + left, 1);
  $("bar").value = answered;
  const facts = [`${answered} of ${answered + left} ${MANY[kind]}`];
  if (state.times.length >= 3) {
    const sorted = [...state.times].sort((a, b) => a - b);
    const pace = sorted[Math.floor(sorted.length / 2)];
    facts.push(`${pace.toFixed(1)} s each`);
    if (left > 0) {
      facts.push(`about ${inWords(pace * left)} left`);
    }
  }
  for (const [other, { left: rest }] of Object.entries(state.progress)) {
    if (other !== kind && rest > 0) {
      facts.push(`then ${rest} ${MANY[other]}`);
    }
  }
  $("facts").textContent = facts.join(" · ");
  showForesight(state.foresight[kind]);
}

/** A quiet line: how far one can see by now. Who has said enough may go on all the same. */
function showForesight(found) {
  $("foresight").hidden = !found;
  $("foresight").textContent = found ? found.words : "";
  $("foresight").classList.toggle("enough", Boolean(found && found.enough));
}

/** What follows from the answers of all; when the server is still at it, look again in a moment. */
function setForesight({ foresight, current }) {
  state.foresight = foresight || {};
  showFacts();
  if (current === false && state.looking === null) {
    state.looking = setTimeout(lookAgain, 400);
  }
}

async function lookAgain() {
  state.looking = null;
  try {
    setForesight(await request("api/tasks", { person: state.person, count: 0 }));
  } catch {
    // the next answer brings it
  }
}

function setProgressOf(found, person) {
  setForesight(found);
  if (person === state.person) {
    setProgress(found.progress);
  }
}

function setProgress(found) {
  // What still waits is not counted there yet.
  const waiting = outbox.of(state.person);
  for (const [kind, { answered, left }] of Object.entries(found)) {
    const own = waiting.filter((entry) => entry.kind === kind).length;
    state.progress[kind] = { answered: answered + own, left: Math.max(left - own, 0) };
  }
  showFacts();
}

function showTrouble(text) {
  $("notice").textContent = text || state.lost;
  $("notice").hidden = !$("notice").textContent;
}

function showLost(text) {
  state.lost = text;
  showTrouble("");
}

// --- tasks --------------------------------------------------------------------------------

/** See to it that enough is here; what is here already is held on by asking. */
function fill() {
  if (state.filling === null) {
    state.filling = fetchTasks().finally(() => {
      state.filling = null;
    });
  }
  return state.filling;
}

async function fetchTasks() {
  const here = state.queue.length + (state.view === "grid" ? state.cells.length : 0);
  const wanted = (state.view === "grid" ? PAGE : 0) + state.session.ahead + 1 - here;
  if (wanted <= 0) {
    return;
  }
  const own = [...state.queue, ...state.cells.map((cell) => cell.task)].map((task) => task.id);
  const { changes } = outbox;
  const quiet = outbox.waiting.length === 0;
  try {
    const found = await request("api/tasks", {
      person: state.person, count: Math.min(wanted, 96), held: [...own, ...outbox.tasks].slice(0, 200),
    });
    const known = new Set([...own, ...outbox.tasks, ...state.queue.map((task) => task.id)]);
    const fresh = found.tasks.filter((task) => !known.has(task.id));
    state.dry = fresh.length === 0;
    state.queue.push(...fresh);
    setForesight(found);
    // Counted before an answer that was given meanwhile, the numbers are old; those of that answer follow.
    if (quiet && outbox.changes === changes) {
      setProgress(found.progress);
    }
    for (const task of state.queue.slice(0, state.session.ahead + 1)) {
      figuresOf(task);
    }
  } catch (error) {
    if (error instanceof Refused && error.status < 500) {
      showTrouble(error.message);
    } else {
      showTrouble("The server cannot be reached; this page tries again.");
    }
  }
}

/** Others need not wait for what is held here when the page is closed. */
function letGo() {
  const tasks = [...state.queue, ...state.cells.map((cell) => cell.task)].map((task) => task.id).slice(0, 200);
  if (state.person && tasks.length > 0) {
    const body = JSON.stringify({ person: state.person, tasks });
    navigator.sendBeacon("api/release", new Blob([body], { type: "application/json" }));
  }
}

async function fillAndShow() {
  const empty = state.view === "single" && state.queue.length === 0;
  await fill();
  if (empty || state.view === "grid") {
    show();
  }
}

// --- one at a time ------------------------------------------------------------------------

function answer(word) {
  const looking = state.at !== null;
  const task = looking ? state.past[state.at].task : state.queue[0];
  if (!task || $("single").hidden) {
    return;
  }
  const seconds = Math.round(performance.now() - state.shownAt) / 1000;
  const uid = Outbox.uid();
  if (looking) {
    state.past[state.at] = { task, uid, answer: word };
    state.at = state.at + 1 < state.past.length ? state.at + 1 : null;
  } else {
    state.queue.shift();
    state.past.push({ task, uid, answer: word });
    count(task.kind, 1);
    state.times = [...state.times, seconds].slice(-20);
  }
  show();
  outbox.answer(state.person, "annotate", { uid, task: task.id, answer: word, seconds }, task.kind);
  fillAndShow();
}

async function undo() {
  state.at = null;
  const last = state.past.pop();
  if (last) {
    outbox.undo(state.person, last.uid);
    bringBack(last.task, last.answer);
    return;
  }
  // After a reload the page does not know what came before; the server does.
  await outbox.flush();
  try {
    const found = await request("api/undo", { person: state.person });
    if (found.task) {
      bringBack(found.task, found.task.answer);
    }
    setForesight(found);
    setProgress(found.progress);
  } catch (error) {
    showTrouble(error instanceof Refused ? error.message : "The server cannot be reached.");
  }
}

function bringBack(task, said) {
  task.said = said;
  state.queue = [task, ...state.queue.filter((other) => other.id !== task.id)];
  count(task.kind, -1);
  state.introduced.add(task.kind);
  show();
}

function look(step) {
  if (state.at === null && step > 0) {
    if (state.queue.length > 1) {
      state.queue.push(state.queue.shift()); // skipped: it comes again later
    }
  } else {
    const place = (state.at === null ? state.past.length : state.at) + step;
    if (place < 0) {
      return;
    }
    state.at = place < state.past.length ? place : null;
  }
  show();
}

// --- the grid -----------------------------------------------------------------------------

function gridPanel(task) {
  if (task.kind === "neuron") {
    return "patch";
  }
  if (task.kind === "spot") { // overlaid alone would show the spot, and nothing around it
    return state.panels.find((panel) => panel === "orange" || panel === "red") || "orange";
  }
  return state.panels.find((panel) => panel !== "original") || "overlaid";
}

function showGrid() {
  if (state.cells.length === 0) {
    if (state.queue.length === 0) {
      showPause();
      return;
    }
    if (isNew(state.queue[0])) {
      showTurn(state.queue[0]);
      return;
    }
    const other = state.queue.findIndex((task) => task.kind !== state.queue[0].kind); // one kind on a page
    const end = Math.min(other < 0 ? state.queue.length : other, PAGE);
    state.cells = state.queue.splice(0, end).map((task) => ({ task, answer: "yes" }));
    drawCells();
    state.shownAt = performance.now();
  }
  showOnly("grid");
  showFacts();
}

function drawCells() {
  const questions = new Set(state.cells.map(({ task }) => task.question));
  const same = questions.size === 1;
  $("grid-question").textContent = same ? [...questions][0] : "Is it so, as it says below each picture?";
  $("cells").replaceChildren(...state.cells.map((cell, place) => cellOf(cell, place, same)));
  $("cells").firstElementChild.focus();
}

function cellOf(cell, place, same) {
  const { task } = cell;
  const button = make("button", { type: "button", className: "cell" });
  for (let number = 0; number < task.pictures; number += 1) {
    button.append(make("img", { alt: "", src: pictureOf(task, number, gridPanel(task), "small") }));
  }
  if (!same) {
    button.append(make("span", { className: "asked", textContent: task.question }));
  }
  button.append(make("span", { className: "mark" }));
  button.addEventListener("click", () => setCell(cell, WORDS[(WORDS.indexOf(cell.answer) + 1) % WORDS.length]));
  cell.button = button;
  cell.name = `Picture ${place + 1}. ${task.question}`;
  setCell(cell, cell.answer);
  return button;
}

function setCell(cell, word) {
  cell.answer = word;
  cell.button.dataset.answer = word;
  cell.button.querySelector(".mark").textContent = word;
  cell.button.setAttribute("aria-label", `${cell.name} ${word}`);
}

function submitPage() {
  if (state.view !== "grid" || state.cells.length === 0) {
    return;
  }
  const passed = (performance.now() - state.shownAt) / 1000 / state.cells.length;
  const seconds = Math.round(1000 * passed) / 1000;
  const page = state.cells.map(({ task, answer: word }) => ({ task, uid: Outbox.uid(), answer: word }));
  state.cells = [];
  state.pages.push(page);
  for (const { task, uid, answer: word } of page) {
    outbox.answer(state.person, "grid", { uid, task: task.id, answer: word, seconds }, task.kind);
  }
  count(page[0].task.kind, page.length);
  state.times = [...state.times, ...page.map(() => seconds)].slice(-20);
  if (state.queue.length > 0) {
    show();
  }
  fillAndShow();
}

function undoPage() {
  const page = state.pages.pop();
  if (!page) {
    return;
  }
  state.queue.unshift(...state.cells.map((cell) => cell.task));
  for (const { uid } of page) {
    outbox.undo(state.person, uid);
  }
  state.cells = page.map(({ task, answer: word }) => ({ task, answer: word }));
  count(page[0].task.kind, -page.length);
  drawCells();
  state.shownAt = performance.now();
  show();
}

function moveInGrid(key) {
  const cells = state.cells.map((cell) => cell.button);
  const row = cells.filter((cell) => cell.offsetTop === cells[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row }[key];
  const place = cells.indexOf(document.activeElement) + step;
  if (cells[place]) {
    cells[place].focus();
  }
}

function toggleView() {
  if (state.view === "grid") {
    state.queue.unshift(...state.cells.map((cell) => cell.task));
    state.cells = [];
  }
  state.at = null;
  state.view = state.view === "grid" ? "single" : "grid";
  $("mode").textContent = state.view === "grid" ? "One by one" : "Grid";
  $("mode").setAttribute("aria-pressed", String(state.view === "grid"));
  fill().then(show);
}

// --- keys ---------------------------------------------------------------------------------

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) {
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = keyAction(key);
  if (!action) {
    return;
  }
  event.preventDefault();
  // A key that is held down is one answer, not thirty.
  if (!event.repeat || key.startsWith("Arrow")) {
    action();
  }
}

function keyAction(key) {
  const word = { y: "yes", n: "no", u: "unsure" }[key];
  const always = { "?": () => openDialog("help"), h: () => openDialog("help"), g: toggleView }[key];
  if (always) {
    return always;
  }
  if (!$("turn").hidden && document.activeElement.id !== "turn-undo" && (key === "Enter" || key === " ")) {
    return goOn;
  }
  if (/^[1-4]$/.test(key) && hasPanels()) {
    return () => togglePanel(Object.keys(PANELS)[Number(key) - 1]);
  }
  if (state.view === "grid" && state.cells.length > 0) {
    const cell = state.cells.find(({ button }) => button === document.activeElement);
    if (word) {
      return cell && (() => setCell(cell, word));
    }
    if (key.startsWith("Arrow")) {
      return () => moveInGrid(key);
    }
    return { Enter: submitPage, z: undoPage, Backspace: undoPage }[key];
  }
  if (word) {
    return () => answer(word);
  }
  const back = state.view === "grid" ? undoPage : undo;
  return { z: back, Backspace: back, ArrowLeft: () => look(-1), ArrowRight: () => look(1) }[key];
}

function openDialog(id) {
  if (id === "help") {
    $("help-text").textContent = describeTask(currentKind());
  }
  if (!$(id).open) {
    $(id).showModal();
  }
}

/** Whether anything is asked that is shown in panels: all but patches. */
function hasPanels() {
  return Object.keys(state.session.kinds).some((kind) => kind !== "neuron");
}

// --- panels -------------------------------------------------------------------------------

function drawPanelChoices() {
  const choices = Object.entries(PANELS).map(([panel, title], place) => {
    const box = make("input", { type: "checkbox", id: `panel-${panel}`, checked: state.panels.includes(panel) });
    box.addEventListener("change", () => togglePanel(panel));
    return make("label", { className: "choice" }, box, ` ${title} `, make("kbd", { textContent: String(place + 1) }));
  });
  $("panel-choices").replaceChildren(...choices);
}

function togglePanel(panel) {
  const without = state.panels.filter((other) => other !== panel);
  const next = state.panels.includes(panel) ? without : [...state.panels, panel];
  if (next.length > 0) {
    state.panels = next;
    localStorage.setItem("crayon.panels", next.join(" "));
  }
  drawPanelChoices();
  if (state.view === "grid" && state.cells.length > 0) {
    drawCells();
  }
  state.queue.slice(0, state.session.ahead + 1).forEach(figuresOf);
  if (state.person) {
    show();
  }
}

// --- start --------------------------------------------------------------------------------

async function join(name) {
  const { person, answered } = await request("api/join", { person: name });
  const same = state.session.person === person || localStorage.getItem("crayon.person") === person;
  if (answered > 0 && !same && $("join-note").dataset.asked !== person) {
    $("join-note").textContent = `${person} has given ${answered} answers already. If that is you, go on; else take another name.`;
    $("join-note").dataset.asked = person;
    $("join-button").textContent = "Go on";
    openDialog("join");
    $("name").value = person;
    return;
  }
  localStorage.setItem("crayon.person", person);
  state.person = person;
  $("join").close();
  $("who").textContent = person;
  outbox.flush();
  await fill();
  show();
}

async function tryToJoin(name) {
  try {
    await join(name);
  } catch (error) {
    openDialog("join");
    $("join-note").textContent = error instanceof Refused && error.status !== 422
      ? error.message : "That name cannot be used, or the server cannot be reached.";
  }
}

function describeTask(kind) {
  if (kind === "spot") {
    return "Look at the one bright spot. If it lies on what the question names, answer yes; if it lies on the rest of the picture, no.";
  }
  return kind === "image"
    ? "Look at what is highlighted. If most of it lies on what the question names, answer yes; if it lies on the rest of the picture, no."
    : "Look at what is in the red rectangle. If it is mainly part of what the question names, answer yes; else no.";
}

async function start() {
  document.addEventListener("keydown", onKey);
  addEventListener("pagehide", letGo);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  for (const button of document.querySelectorAll("[data-answer]")) {
    button.addEventListener("click", () => answer(button.dataset.answer));
  }
  const clicks = {
    undo, submit: submitPage, mode: toggleView, "grid-undo": undoPage,
    "turn-go": goOn, "turn-undo": () => (state.view === "grid" ? undoPage() : undo()),
    "pause-undo": () => (state.view === "grid" ? undoPage() : undo()),
    "help-button": () => openDialog("help"), "panels-button": () => openDialog("panels"),
  };
  for (const [id, action] of Object.entries(clicks)) {
    $(id).addEventListener("click", action);
  }
  $("join-form").addEventListener("submit", (event) => {
    event.preventDefault();
    tryToJoin($("name").value);
  });
  $("join").addEventListener("cancel", (event) => event.preventDefault());
  drawPanelChoices();
  state.session = await request("api/session");
  $("title").textContent = state.session.title;
  document.title = `${state.session.title} – crayon annotate`;
  outbox.only = state.session.person;
  for (const [kind, left] of Object.entries(state.session.kinds)) {
    state.progress[kind] = { answered: 0, left };
  }
  $("panels-button").hidden = !hasPanels();
  setInterval(() => {
    outbox.flush(); // what a tab has left that was closed since
    // Holds what is here, and looks again where nothing was free.
    if (state.person && !document.hidden && state.queue.length <= state.session.ahead) {
      fillAndShow();
    }
  }, 5000);
  const named = state.session.person || new URLSearchParams(location.search).get("name")
    || localStorage.getItem("crayon.person");
  if (named) {
    await tryToJoin(named);
  } else {
    openDialog("join");
  }
}

start().catch((error) => {
  showTrouble(error instanceof Refused ? error.message : "The server cannot be reached; reload the page when it is back.");
});
