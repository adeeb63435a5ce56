// The samples of the page: unpack, filter and sort them. Nothing here touches the page's elements.
(() => {
  "use strict";
  const report = globalThis.rlaifReport;
  const NO_VERDICT = -1; // in place of a probability, as in the column that it is packed in

  // The letters of base 85 as in Python's b85encode, but for three that mean something in HTML.
  const LETTERS =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%:()*+-;,=.?@^_`{|}~";

  function decode(text) {
    const values = new Uint8Array(128);
    [...LETTERS].forEach((letter, value) => (values[letter.charCodeAt(0)] = value));
    const missing = (5 - (text.length % 5)) % 5;
    const padded = text + "~".repeat(missing);
    const bytes = new DataView(new ArrayBuffer((padded.length / 5) * 4));
    for (let i = 0, place = 0; i < padded.length; place += 4) {
      let word = 0;
      for (const end = i + 5; i < end; i++) word = word * 85 + values[padded.charCodeAt(i)];
      bytes.setUint32(place, word);
    }
    return bytes.buffer.slice(0, bytes.byteLength - missing);
  }

  // Row `index` of columns by name, without the values that it does not have.
  const rowOf = (columns, index) =>
    Object.fromEntries(
      Object.entries(columns).flatMap(([name, values]) => (values[index] === null ? [] : [[name, values[index]]])),
    );

  // Probabilities are packed in thousandths.
  const toProbability = (value) => (value == null ? null : value / 1000);

  const readVerdicts = (data, rationales, index) =>
    data.verdicts.flatMap(({ matchup, judge, probabilities, orders, notes }, kind) => {
      if (probabilities[index] === NO_VERDICT) return [];
      return {
        matchup,
        judge,
        probability: toProbability(probabilities[index]),
        orders: orders.map((values) => toProbability(values[index])),
        rationales: rationales[kind] ?? [],
        note: notes[index],
      };
    });

  const readResponses = (data, texts, index) =>
    Object.fromEntries(
      data.policies.flatMap((policy, place) => {
        if (texts[place] === null) return [];
        const [rewards, metrics] = [rowOf(data.rewards[place], index), rowOf(data.metrics[place], index)];
        return [[policy, { text: texts[place], rewards, metrics }]];
      }),
    );

  // Decompress the samples. Resolves to {policies, matchups, judges, isLabels, samples}. A verdict of a sample has the
  // numbers of its matchup and its judge. Labels are verdicts on the first and the second response of a comparison,
  // whose `human` has the preference of people for the first one.
  report.unpackSamples = async (text) => {
    const bytes = decode(text.trim());
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const data = JSON.parse(await new Response(stream).text());
    const { policies, matchups, judges } = data;
    const samples = data.texts.map(([prompt, reference, texts, rationales], index) => ({
      number: index + 1,
      id: data.ids[index],
      prompt,
      reference,
      groups: rowOf(data.groups, index),
      human: rowOf(data.human, index),
      responses: readResponses(data, texts, index),
      verdicts: readVerdicts(data, rationales, index),
    }));
    for (const { human } of samples) for (const name in human) human[name] = toProbability(human[name]);
    return { policies, matchups, judges, isLabels: "preference" in data.human, samples };
  };

  report.findVerdict = (sample, matchup, judge) =>
    sample.verdicts.find((verdict) => verdict.matchup === matchup && verdict.judge === judge);

  const favours = (probability) => (probability === 0.5 ? "tie" : probability > 0.5 ? "first" : "second");

  // "first", "second", or "tie", which is also in place of a preference that is not known.
  report.preferredByPeople = (sample) => favours(sample.human.preference ?? 0.5);

  // The outcome of a verdict: for the first policy of its matchup or, of a label, beside the preference of people.
  report.nameOutcome = (data, sample, verdict) => {
    const isRead = verdict && verdict.probability !== null;
    if (!isRead) return data.isLabels ? "failed" : "unread";
    const label = favours(verdict.probability);
    if (!data.isLabels) return { first: "win", tie: "tie", second: "loss" }[label];
    const human = report.preferredByPeople(sample);
    if (label === "tie" || human === "tie") return label;
    return label === human ? "agrees" : "disagrees";
  };

  // True if a verdict has both orders; a judge may have been shown one, or one may not have been read.
  const hasBoth = (orders) => orders.length === 2 && orders[0] !== null && orders[1] !== null;

  const prefersSamePosition = (orders) =>
    hasBoth(orders) && !orders.includes(0.5) && orders[0] > 0.5 !== orders[1] > 0.5;

  // A value of a mapping whose keys are names that people choose, such as `constructor`.
  const valueOf = (mapping, name) => (mapping && Object.hasOwn(mapping, name) ? mapping[name] : undefined);

  const textOf = (sample, policy) => sample.responses[policy]?.text ?? sample.reference ?? "";
  report.responseText = textOf;

  const length = (sample, policy) => textOf(sample, policy).length;

  const lacksEnd = (sample, policy) => sample.responses[policy]?.metrics.eos_rate === 0;

  const isEmpty = (sample, policy) => length(sample, policy) === 0;

  function prefersLonger(sample, verdict, [first, second]) {
    const longer = Math.sign(length(sample, first) - length(sample, second));
    return Boolean(verdict) && longer * Math.sign((verdict.probability ?? 0.5) - 0.5) > 0;
  }

  const judgesDisagree = (sample, verdict, names, matchup) => {
    const outcomes = sample.verdicts.filter((found) => found.matchup === matchup).map((found) => found.probability);
    return outcomes.some((p) => p > 0.5) && outcomes.some((p) => p !== null && p < 0.5);
  };

  // Slices by name: functions of a sample, its verdict, and the names of the two policies.
  report.listSlices = (data) => {
    const ofAll = [
      ["orders disagree", (s, verdict) => Boolean(verdict) && prefersSamePosition(verdict.orders)],
      ["first is longer", (s, v, [first, second]) => length(s, first) > length(s, second)],
      ["first is shorter", (s, v, [first, second]) => length(s, first) < length(s, second)],
    ];
    const ofPolicies = [
      ["equal responses", (s, v, [first, second]) => textOf(s, first) === textOf(s, second)],
      ["first has no end (EOS)", (s, v, [first]) => lacksEnd(s, first)],
      ["first is empty", (s, v, [first]) => isEmpty(s, first)],
    ];
    const ofLabels = [
      ["prefers the longer", prefersLonger],
      ["people have no preference", (sample) => report.preferredByPeople(sample) === "tie"],
    ];
    const slices = new Map(data.matchups.length ? [...ofAll, ...(data.isLabels ? ofLabels : ofPolicies)] : []);
    if (data.judges.length > 1) slices.set(data.isLabels ? "labelers disagree" : "judges disagree", judgesDisagree);
    const groups = new Map();
    for (const sample of data.samples) {
      for (const [column, value] of Object.entries(sample.groups)) {
        groups.set(column, (groups.get(column) ?? new Set()).add(value));
      }
    }
    for (const [column, values] of groups) {
      for (const value of [...values].sort()) {
        slices.set(`${column}: ${value}`, (sample) => sample.groups[column] === value);
      }
    }
    return slices;
  };

  // How much the arm's own reward rates its response above that of the other policy.
  report.rewardGain = (sample, [first, second]) => {
    const [own, other] = [first, second].map((name) => valueOf(valueOf(sample.responses, name)?.rewards, first));
    return own === undefined || other === undefined ? null : own - other;
  };

  // Distance of a label from the preference of people, the largest first; samples without one or the other last.
  const distanceFromPeople = (sample, verdict) => {
    const known = verdict?.probability != null && sample.human.preference !== undefined;
    return known ? -Math.abs(verdict.probability - sample.human.preference) : 1;
  };

  // Orders of the list by name: the number that it is sorted by, the smallest first.
  report.listSortings = (data) => {
    const [first, second, closest] = data.isLabels
      ? ["first preferred most", "second preferred most", "least certain"]
      : ["first wins most", "first loses most", "closest"];
    const ofAll = [
      ["number", (sample) => sample.number],
      [first, (s, verdict) => (verdict?.probability == null ? 2 : 1 - verdict.probability)],
      [second, (s, verdict) => verdict?.probability ?? 2],
      [closest, (s, verdict) => (verdict?.probability == null ? 2 : Math.abs(verdict.probability - 0.5))],
      ["orders differ most", (s, v) => (v && hasBoth(v.orders) ? -Math.abs(v.orders[0] - v.orders[1]) : 1)],
    ];
    const ofPolicies = [
      ["reward rose most", (s, v, names) => -(report.rewardGain(s, names) ?? -Infinity)],
      ["reward fell most", (s, v, names) => report.rewardGain(s, names) ?? Infinity],
    ];
    return new Map([...ofAll, ...(data.isLabels ? [["furthest from people", distanceFromPeople]] : ofPolicies)]);
  };

  // All texts of a sample in lower case, made when they are first searched.
  function searchable(sample) {
    if (sample.searchable === undefined) {
      const responses = Object.values(sample.responses).map((response) => response.text);
      const written = sample.verdicts.flatMap((verdict) => [verdict.note, ...verdict.rationales.flat()]);
      const texts = [sample.id, sample.prompt, sample.reference ?? "", ...responses, ...written];
      sample.searchable = texts.join("\n").toLowerCase();
    }
    return sample.searchable;
  }

  // Choose samples. `filter` has matchup, judge (numbers), outcome, slice, sort and q (texts).
  report.chooseSamples = (data, slices, sortings, filter) => {
    const names = data.matchups[filter.matchup] ?? [];
    const words = filter.q.toLowerCase().split(/\s+/).filter(Boolean);
    const slice = slices.get(filter.slice);
    const key = sortings.get(filter.sort) ?? sortings.get("number");
    const found = [];
    for (const sample of data.samples) {
      const verdict = report.findVerdict(sample, filter.matchup, filter.judge);
      if (filter.outcome && report.nameOutcome(data, sample, verdict) !== filter.outcome) continue;
      if (slice && !slice(sample, verdict, names, filter.matchup)) continue;
      if (words.length && !words.every((word) => searchable(sample).includes(word))) continue;
      found.push([key(sample, verdict, names), sample]);
    }
    found.sort((a, b) => a[0] - b[0] || a[1].number - b[1].number);
    return found.map(([, sample]) => sample);
  };
})();
