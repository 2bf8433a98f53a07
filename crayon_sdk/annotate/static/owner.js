"use strict";

const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);

function rowOf(person) {
  const cells = [
    person.person,
    String(person.answers),
    percent(person.yes),
    percent(person.unsure),
    person.median_seconds === null ? "–" : `${person.median_seconds.toFixed(1)} s`,
    person.per_minute === null ? "–" : person.per_minute.toFixed(0),
  ].map((textContent) => make("td", { textContent }));
  return make("tr", {}, ...cells, make("td", { className: "flags", textContent: person.flags.join("; ") || "–" }));
}

function splitOf(task) {
  const panel = task.kind === "neuron" ? "patch" : "orange";
  const pictures = Array.from({ length: task.pictures }, (_, number) =>
    make("img", { alt: "", src: pictureOf(task, number, panel, "small") }));
  const words = { yes: [], no: [], unsure: [] };
  for (const [person, answer] of Object.entries(task.said)) {
    words[answer].push(person);
  }
  const said = Object.entries(words).filter(([, people]) => people.length > 0).map(([word, people]) =>
    make("li", { className: word, textContent: `${word}: ${people.join(", ")}` }));
  return make("figure", {}, ...pictures, make("figcaption", {},
    make("p", { textContent: task.question }),
    make("p", { className: "sample", textContent: task.sample }),
    make("ul", {}, ...said)));
}

let shown = "";

function draw(found) {
  $("title").textContent = found.title;
  const kinds = Object.entries(found.kinds);
  $("bar").max = Math.max(kinds.reduce((sum, [, { tasks }]) => sum + tasks, 0), 1);
  $("bar").value = kinds.reduce((sum, [, { done }]) => sum + done, 0);
  const done = kinds.map(([kind, each]) => `${each.done} of ${each.tasks} ${MANY[kind]}`).join(", ");
  const votes = found.votes > 1 ? ` of ${found.votes} votes each` : "";
  $("facts").textContent = `${done} done${votes} · ${found.answers} answers`;
  document.querySelector("#people tbody").replaceChildren(...found.people.map(rowOf));
  const measured = Object.entries(found.agreement).filter(([, { percent: each }]) => each !== null);
  const agreed = measured.map(([kind, { percent: each, kappa }]) =>
    `${each.toFixed(1)} % of the answers about ${MANY[kind]} agree${kappa === null ? "" : `, kappa ${kappa.toFixed(2)}`}.`);
  const more = found.disagreements > found.shown.length ? `; the latest ${found.shown.length}:` : found.shown.length ? ":" : ".";
  $("agreement").textContent = agreed.length > 0
    ? `${agreed.join(" ")} People disagree about ${found.disagreements}${more}`
    : "Nothing was answered by two people yet.";
  const next = JSON.stringify(found.shown);
  if (next !== shown) { // else pictures would blink
    shown = next;
    $("split").replaceChildren(...found.shown.map(splitOf));
  }
}

function say(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function look() {
  try {
    draw(await request("api/owner"));
    if ($("notice").dataset.kind === "trouble") {
      say("");
    }
  } catch (error) {
    $("notice").dataset.kind = "trouble";
    say(error instanceof Refused ? error.message : "The server cannot be reached; this page tries again.");
  }
}

$("export").addEventListener("click", async () => {
  try {
    const { new: count } = await request("api/owner/export", {});
    $("notice").dataset.kind = "export";
    say(`${count} new answers written to answers.jsonl.`);
  } catch (error) {
    say(error instanceof Refused ? error.message : "The server cannot be reached.");
  }
});

look();
setInterval(look, 2000);
