// Show one sample: prompt, reference, responses with rewards and differences, and verdicts.
(() => {
  "use strict";
  const report = globalThis.rlaifReport;
  const { make } = report;
  const OUTCOMES = {
    win: "▲ win",
    loss: "▼ loss",
    tie: "= tie",
    unread: "? unread",
    agrees: "✓ agrees",
    disagrees: "✗ disagrees",
    first: "prefers first",
    second: "prefers second",
    failed: "? failed",
  };

  report.showOutcome = (outcome) => make("span", `outcome ${outcome}`, OUTCOMES[outcome]);

  // From -1 (the second is better for sure) to +1.
  report.showMargin = (verdict) => {
    if (!verdict || verdict.probability === null) return "";
    const margin = 2 * verdict.probability - 1;
    return `${margin > 0 ? "+" : ""}${margin.toFixed(2)}`;
  };

  const showProbability = (value) => (value == null ? "-" : `${(100 * value).toFixed(1)} %`);

  // Mark the words that were searched.
  function addText(parent, text, words) {
    const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
    if (!pattern) {
      parent.append(text);
      return;
    }
    // Splitting by a group keeps what was found, at odd places.
    text.split(new RegExp(`(${pattern})`, "gi")).forEach((part, index) => {
      parent.append(index % 2 ? make("mark", "", part) : part);
    });
  }

  function addDifferences(parent, before, after) {
    const parts = report.compareWords(before, after);
    if (parts === null) {
      parent.append(after);
      return;
    }
    const tags = { same: "span", removed: "del", added: "ins" };
    for (const [kind, text] of parts) parent.append(make(tags[kind], "", text));
  }

  // A response: its policy, the rewards and metrics, the text.
  function showResponse(sample, policy, data, view) {
    const { text, rewards, metrics } = sample.responses[policy];
    const card = make("div", view.names.includes(policy) ? "response compared" : "response");
    card.append(make("h4", "", data.isLabels ? `${policy} response` : policy));
    const facts = Object.entries(rewards).map(([arm, score]) =>
      arm === policy ? `reward ${score.toPrecision(3)}` : `reward of ${arm} ${score.toPrecision(3)}`,
    );
    if (metrics.tokens !== undefined) facts.push(`${metrics.tokens} tokens`);
    if (metrics.eos_rate === 0) facts.push("no end (EOS)");
    if (data.isLabels) facts.push(`${text.length} characters`);
    if (data.isLabels && report.preferredByPeople(sample) === policy) facts.push("preferred by people");
    card.append(make("p", "facts", facts.join(" · ")));
    const body = make("div", "text");
    const base = view.base === null ? "" : report.responseText(sample, view.base);
    if (!text.trim()) body.append(make("span", "empty", "(empty)"));
    else if (base && policy !== view.base) addDifferences(body, base, text);
    else addText(body, text, view.words);
    card.append(body);
    return card;
  }

  // The verdicts, those of the chosen matchup first.
  function orderVerdicts(sample, view) {
    const place = (verdict) => (verdict.matchup === view.matchup ? 0 : 1);
    return [...sample.verdicts].sort((a, b) => place(a) - place(b));
  }

  let rationalesOpen = false; // of all samples, so that they stay open from one to the next

  function showRationales(sample, data, view) {
    const found = orderVerdicts(sample, view).filter((verdict) => verdict.rationales.length);
    if (!found.length) return null;
    const details = make("details", "rationales");
    details.open = rationalesOpen;
    details.append(make("summary", "", `What the ${data.isLabels ? "labelers" : "judges"} wrote`));
    for (const { matchup, judge, rationales } of found) {
      const names = data.matchups[matchup];
      const by = data.isLabels ? "" : `${names.join(" against ")}, by `;
      details.append(make("h4", "", by + data.judges[judge]));
      rationales.forEach((texts, order) => {
        const shown = order === 0 ? names : [...names].reverse();
        if (texts.length) details.append(make("p", "soft", `Shown in the order ${shown.join(", ")}:`));
        for (const text of texts) details.append(make("pre", "", text));
      });
    }
    return details;
  }

  // The preference of people, as a row of the table of labels.
  const showPeople = ({ preference, confidence }) => [
    "people",
    "",
    showProbability(preference),
    "",
    "",
    confidence === undefined ? "" : `confidence ${confidence}`,
  ];

  // All verdicts on the sample, in a table.
  function showVerdicts(sample, data, view) {
    const box = make("div", "scroll");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", data.isLabels ? "Labels" : "Verdicts");
    const table = make("table", "verdicts");
    const title = data.isLabels ? "Labels" : "Verdicts";
    table.append(make("caption", "", `${title}: the probability that the first response is better`));
    const columns = ["outcome", "probability", "shown first", "shown second"];
    const names = data.isLabels ? ["labeler", ...columns, "notes"] : ["matchup", "judge", ...columns];
    const rows = orderVerdicts(sample, view).map((verdict) => {
      const outcome = report.showOutcome(report.nameOutcome(data, sample, verdict));
      const judge = data.judges[verdict.judge];
      const numbers = [verdict.probability, verdict.orders[0], verdict.orders[1]].map(showProbability);
      if (data.isLabels) return [judge, outcome, ...numbers, verdict.note];
      return [data.matchups[verdict.matchup].join(" against "), judge, outcome, ...numbers];
    });
    if (sample.human.preference !== undefined) rows.push(showPeople(sample.human));
    const head = table.createTHead().insertRow();
    for (const name of names) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const cells of rows) {
      const row = body.insertRow();
      for (const cell of cells) row.insertCell().append(cell);
    }
    box.append(table);
    return box;
  }

  function showText(title, text, view) {
    const part = make("div");
    part.append(make("h4", "", title));
    const body = make("div", "text prompt-text");
    body.tabIndex = 0; // a long text is scrolled by keyboard
    body.setAttribute("role", "region");
    body.setAttribute("aria-label", title);
    addText(body, text, view.words);
    part.append(body);
    return part;
  }

  // Fill the element. `view` has names, matchup, words, and base: the policy to show differences from, or null.
  report.showSample = (element, sample, data, view) => {
    rationalesOpen = document.querySelector(".sample-detail .rationales")?.open ?? rationalesOpen;
    const parts = [showText("Prompt", sample.prompt, view)];
    if (sample.reference) parts.push(showText("Reference", sample.reference, view));
    const responses = make("div", "responses");
    const others = data.policies.filter((policy) => !view.names.includes(policy));
    for (const policy of [...view.names, ...others]) {
      if (sample.responses[policy]) responses.append(showResponse(sample, policy, data, view));
    }
    parts.push(responses);
    if (sample.verdicts.length) parts.push(showVerdicts(sample, data, view));
    const rationales = showRationales(sample, data, view);
    if (rationales) parts.push(rationales);
    element.replaceChildren(...parts);
  };
})();
