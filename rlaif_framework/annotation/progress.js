// Shows the measurements so far. All texts are set as text, never as HTML.
"use strict";

const TOKEN = "rlaif-progress-token", SECONDS = 5;
const found = new URLSearchParams(location.hash.slice(1)).get("token");
if (found) {
  sessionStorage.setItem(TOKEN, JSON.stringify(found));
  history.replaceState(null, "", location.pathname);
}
const token = JSON.parse(sessionStorage.getItem(TOKEN));
addEventListener("hashchange", () => location.reload()); // the URL was pasted into this tab

const percent = (x) => (x ? `${(100 * x.value).toFixed(1)} % [${(100 * x.low).toFixed(0)}, ${(100 * x.high).toFixed(0)}]` : "-");
const number = (x) => (x ? `${x.value.toFixed(2)} [${x.low.toFixed(2)}, ${x.high.toFixed(2)}]` : "-");

function element(tag, content, className) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (Array.isArray(content)) made.append(...content);
  else made.textContent = content;
  return made;
}

function table(title, head, rows) {
  if (!rows.length) return [];
  const body = rows.map((row) => element("tr", row.map((cell) => element("td", String(cell)))));
  const top = element("tr", head.map((cell) => {
    const made = element("th", cell);
    made.scope = "col";
    return made;
  }));
  return [element("h2", title), element("div", [element("table", [element("thead", [top]), element("tbody", body)])], "wide")];
}

function decide(x) {
  const s = x.sequence;
  const interval = `${(100 * s.low).toFixed(1)} to ${(100 * s.high).toFixed(1)} % after ${s.count} ${s.count === 1 ? "prompt" : "prompts"}`;
  const winner = s.decided && (s.decided === "first" ? x.first : x.second);
  return winner
    ? element("p", `Decided: ${winner} wins more often. Win rate of ${x.first} against ${x.second}: ${interval}.`, "decided")
    : element("p", `Not decided yet. Win rate of ${x.first} against ${x.second}: ${interval}.`);
}

function describe(kind, draw) {
  const where = kind === "random" ? "pairs drawn at random" : "pairs a labeler was least sure of";
  return [
    ...table(`Win rates, ${where}`, ["first", "second", "win rate of the first", "pairs"],
      draw.matchups.map((x) => [x.first, x.second, percent(x.rate), x.rate.count])),
    ...table(`Agreement of people, ${where}`, ["", "value", "pairs"], [
      ...(draw.alpha ? [["Krippendorff's alpha", number(draw.alpha), draw.alpha.count]] : []),
      ...(draw.kendall_w ? [["Kendall's W", number(draw.kendall_w), draw.kendall_w.count]] : []),
      ...draw.kappas.map((x) => [`Cohen's kappa, ${x.first} and ${x.second}`, number(x.kappa), x.kappa.count]),
    ]),
    ...table(`Agreement of labelers with people, ${where}`, ["labeler", "agreement", "Cohen's kappa", "pairs"],
      draw.labelers.map((x) => [x.name, percent(x.agreement), number(x.kappa), x.agreement.count])),
  ];
}

async function refresh() {
  const notice = document.getElementById("notice");
  try {
    const response = await fetch("api/progress", { headers: { Authorization: `Bearer ${token}` } });
    const content = await response.json();
    if (!response.ok) throw Object.assign(new Error(content.error), { status: response.status });
    const x = content.summary;
    notice.hidden = true;
    const draws = Object.entries(x.draws);
    const lines = [element("p", `${content.lines[0]}.`)];
    if (x.consistent) lines.push(element("p", `Same preference in the other order: ${percent(x.consistent)}.`));
    for (const [, draw] of draws) lines.push(...draw.matchups.filter((m) => m.sequence).map(decide));
    const text = lines.map((line) => line.textContent).join("\n");
    const decisions = document.getElementById("decisions");
    if (decisions.dataset.text !== text) { // a screen reader reads only what has changed
      decisions.dataset.text = text;
      decisions.replaceChildren(...lines);
    }
    document.getElementById("tables").replaceChildren(
      ...table("People", ["name", "pairs", "ties", "both bad", "cannot judge", "seconds", "first shown preferred", "consistent", "gold"],
        x.annotators.map((a) => [a.name, a.answers, a.ties, a.both_bad, a.cannot_judge,
          a.median_seconds === null ? "-" : a.median_seconds.toFixed(1), percent(a.shown_first), percent(a.consistent), percent(a.gold)])),
      ...draws.flatMap(([kind, draw]) => describe(kind, draw)),
    );
  } catch (error) {
    notice.textContent = error.status ? error.message : "The server does not answer. Trying again ...";
    notice.hidden = false;
    if (error.status === 401) return;
  }
  setTimeout(refresh, 1000 * SECONDS);
}

refresh();
