// The sample browser: filters, the list, the chosen sample, and all of it in the address.
(async () => {
  "use strict";
  const report = globalThis.rlaifReport;
  const { make } = report;
  const browser = document.getElementById("sample-browser");
  const form = browser.querySelector("form");
  const status = browser.querySelector(".status");
  const detail = browser.querySelector(".sample-detail");
  let data;
  try {
    data = await report.unpackSamples(document.getElementById("sample-data").textContent);
  } catch {
    browser.after(make("p", "soft", "This browser cannot unpack all samples; these are some of them."));
    return;
  }
  const [slices, sortings] = [report.listSlices(data), report.listSortings(data)];
  const nameMatchup = ([first, second]) => `${first} against ${second}`;
  const matchups = new Map(data.matchups.map((names, index) => [names.join("~"), index]));
  const total = Number(browser.dataset.total);
  const leftOut = total > data.samples.length ? ` in this page; there are ${total.toLocaleString("en")} in all` : "";
  let found = [];
  let current = null; // the sample that is shown
  let differences = false;
  let missing = ""; // what is said of a sample in the address that the page does not have

  function fillSelect(name, entries) {
    const select = form.elements[name];
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
    select.closest("label").hidden = entries.length < 2;
  }
  fillSelect("matchup", [...matchups].map(([value, index]) => [value, nameMatchup(data.matchups[index])]));
  fillSelect("judge", data.judges.map((name) => [name, name]));
  fillSelect("slice", [["", "all"], ...[...slices.keys()].map((name) => [name, name])]);
  fillSelect("sort", [...sortings.keys()].map((name) => [name, name]));
  form.elements.outcome.closest("label").hidden = !data.matchups.length;
  const outcomeOf = (sample, verdict) => report.showOutcome(report.nameOutcome(data, sample, verdict));

  const chosen = (name) => form.elements[name].value;
  const readFilter = () => ({
    matchup: matchups.get(chosen("matchup")) ?? -1,
    judge: data.judges.indexOf(chosen("judge")),
    outcome: chosen("outcome"),
    slice: chosen("slice"),
    sort: chosen("sort"),
    q: chosen("q"),
  });

  const list = new report.VirtualList(
    browser.querySelector(".list"),
    (row, sample) => {
      const { matchup, judge } = readFilter();
      const verdict = report.findVerdict(sample, matchup, judge);
      const line = make("div", "line");
      line.append(make("strong", "", `#${sample.number}`));
      if (verdict) line.append(outcomeOf(sample, verdict), report.showMargin(verdict));
      const gain = report.rewardGain(sample, data.matchups[matchup] ?? []);
      if (gain !== null) line.append(make("span", "soft", `reward ${gain > 0 ? "+" : ""}${gain.toPrecision(2)}`));
      const excerpt = sample.prompt.slice(0, 160).replace(/\s+/g, " ");
      row.append(line, make("div", "excerpt", `${sample.id} \u00b7 ${excerpt}`));
    },
    (index) => show(index),
  );

  // The buttons above a sample, and the sample.
  function showDetail() {
    if (!current) {
      detail.replaceChildren(make("p", "soft", "No sample has these properties."));
      return;
    }
    const filter = readFilter();
    const header = make("header");
    header.append(make("h3", "", `Sample ${current.number}`), make("span", "soft", current.id));
    const verdict = report.findVerdict(current, filter.matchup, filter.judge);
    if (verdict) header.append(outcomeOf(current, verdict));
    const names = data.matchups[filter.matchup] ?? [];
    const base = names[1] ?? "sft";
    const toggle = make("button", "", `Differences from ${base}`);
    toggle.type = "button";
    toggle.setAttribute("aria-pressed", String(differences));
    toggle.addEventListener("click", () => {
      differences = !differences;
      showDetail();
      detail.querySelector("header button").focus();
    });
    header.append(toggle);
    const body = make("div");
    report.showSample(body, current, data, {
      names,
      matchup: filter.matchup,
      words: filter.q.split(/\s+/).filter(Boolean),
      base: differences ? base : null,
    });
    detail.replaceChildren(header, body);
  }

  function show(index) {
    current = found[index] ?? null;
    list.select(current ? index : -1);
    showDetail();
    writeHash();
  }

  // Filter again; keep the sample that is shown if it is among those found.
  function update() {
    found = report.chooseSamples(data, slices, sortings, readFilter());
    const [count, all] = [found.length, data.samples.length].map((number) => number.toLocaleString("en"));
    status.textContent = `${count} of ${all} samples${leftOut}${missing}`;
    list.show(found, -1);
    show(Math.max(0, found.indexOf(current)));
  }

  // The address: #sample=ID&matchup=a~b&outcome=loss. Values by default are left out.
  let written = null; // not before the user has chosen something: the address may name another section
  function writeHash() {
    if (written === null) return;
    const parts = new URLSearchParams({ sample: current?.id ?? "" });
    for (const name of ["matchup", "judge", "outcome", "slice", "sort", "q"]) {
      const field = form.elements[name];
      if (field.value && field.selectedIndex !== 0) parts.set(name, field.value);
    }
    written = `#${parts}`;
    history.replaceState(null, "", written);
  }

  function readHash() {
    const values = new URLSearchParams(location.hash.slice(1));
    const id = values.get("sample");
    if (id === null || location.hash === written) return;
    form.reset();
    for (const [name, value] of values) {
      const field = form.elements.namedItem(name);
      // Only known options: an address cannot put anything else into the page.
      if (name === "q" || [...(field?.options ?? [])].some((option) => option.value === value)) field.value = value;
    }
    const linked = data.samples.find((sample) => sample.id === id) ?? null;
    current = linked;
    missing = id && !linked ? `; sample ${id} is not in this page` : "";
    written = location.hash;
    update();
    if (linked && current !== linked) {
      form.reset(); // the filters hide the sample
      current = linked;
      update();
    }
    browser.scrollIntoView({ behavior: "instant" });
  }

  const change = () => {
    written ??= "";
    update();
  };
  form.addEventListener("input", () => {
    missing = "";
    change();
  });
  form.addEventListener("reset", () => setTimeout(change)); // after the fields are reset
  form.addEventListener("submit", (event) => event.preventDefault());
  list.element.addEventListener("click", () => (written ??= ""), true);
  list.element.addEventListener("keydown", () => (written ??= ""), true);
  addEventListener("hashchange", readHash);

  // A bar or a cell of a chart of win rates shows its samples.
  report.chartListeners?.push((datum) => {
    const turned = { win: "loss", loss: "win" };
    const [one, two] = [`${datum.first}~${datum.second}`, `${datum.second}~${datum.first}`];
    if (!matchups.has(one) && !matchups.has(two)) return;
    form.reset();
    form.elements.matchup.value = matchups.has(one) ? one : two;
    if (data.judges.includes(datum.judge)) form.elements.judge.value = datum.judge;
    const outcome = matchups.has(one) ? datum.filter : (turned[datum.filter] ?? datum.filter);
    if (outcome) form.elements.outcome.value = outcome;
    change();
    browser.scrollIntoView({ behavior: "instant" });
  });

  browser.hidden = false;
  update();
  readHash();
  browser.dataset.ready = "true";
})();
