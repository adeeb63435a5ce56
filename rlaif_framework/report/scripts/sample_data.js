// The samples of the page: unpack, filter and sort them. Nothing here touches the page's elements.
(() => {
  "use strict";
  const report = globalThis.rlaifReport;
  const MAX_GROUPS = 12; // columns with more values are no slices

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

  // Decompress the samples. Resolves to {policies, matchups, judges, samples}; a verdict of a sample is
  // [matchup, judge, probability, orders, rationales].
  report.unpackSamples = async (text) => {
    const bytes = decode(text.trim());
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const data = JSON.parse(await new Response(stream).text());
    data.samples = data.samples.map((sample, index) => {
      const verdicts = data.verdicts[index].flatMap((found, kind) =>
        found === null ? [] : [[...data.kinds[kind], found[0], found.slice(1), sample.rationales[kind] ?? []]],
      );
      return { ...sample, number: index + 1, verdicts };
    });
    return data;
  };

  // The verdict on a sample: {probability, orders, rationales}, or undefined.
  report.findVerdict = (sample, matchup, judge) => {
    const found = sample.verdicts.find((verdict) => verdict[0] === matchup && verdict[1] === judge);
    return found && { probability: found[2], orders: found[3], rationales: found[4] };
  };

  // Outcome for the first policy of the matchup.
  report.nameOutcome = (verdict) => {
    if (!verdict || verdict.probability === null) return "unread";
    if (verdict.probability === 0.5) return "tie";
    return verdict.probability > 0.5 ? "win" : "loss";
  };

  // True if a verdict has both orders; a judge may have been shown one, or one may not have been read.
  const hasBoth = (orders) => orders.length === 2 && orders[0] !== null && orders[1] !== null;

  const prefersSamePosition = (orders) =>
    hasBoth(orders) && !orders.includes(0.5) && orders[0] > 0.5 !== orders[1] > 0.5;

  // A value of a mapping whose keys are names that people choose, such as `constructor`.
  const valueOf = (mapping, name) => (mapping && Object.hasOwn(mapping, name) ? mapping[name] : undefined);

  const length = (sample, policy) =>
    (sample.responses[policy] ? sample.responses[policy][0] : (sample.reference ?? "")).length;

  const lacksEnd = (sample, policy) => sample.responses[policy]?.[2].eos_rate === 0;

  const textOf = (sample, policy) =>
    sample.responses[policy] ? sample.responses[policy][0] : (sample.reference ?? "");
  report.responseText = textOf;

  // Slices by name: functions of a sample, its verdict, and the names of the two policies.
  report.listSlices = (data) => {
    const slices = new Map(data.matchups.length === 0 ? [] : [
      ["orders disagree", (s, verdict) => Boolean(verdict) && prefersSamePosition(verdict.orders)],
      ["first is longer", (s, v, [first, second]) => length(s, first) > length(s, second)],
      ["first is shorter", (s, v, [first, second]) => length(s, first) < length(s, second)],
      ["equal responses", (s, v, [first, second]) => textOf(s, first) === textOf(s, second)],
      ["first has no end (EOS)", (s, v, [first]) => lacksEnd(s, first)],
      ["first is empty", (s, v, [first]) => length(s, first) === 0],
    ]);
    if (data.judges.length > 1) {
      slices.set("judges disagree", (sample, verdict, names, matchup) => {
        const outcomes = sample.verdicts.filter((found) => found[0] === matchup).map((found) => found[2]);
        return outcomes.some((p) => p > 0.5) && outcomes.some((p) => p !== null && p < 0.5);
      });
    }
    const groups = new Map();
    for (const sample of data.samples) {
      for (const [column, value] of Object.entries(sample.groups)) {
        groups.set(column, (groups.get(column) ?? new Set()).add(value));
      }
    }
    for (const [column, values] of groups) {
      if (values.size < 2 || values.size > MAX_GROUPS) continue;
      for (const value of [...values].sort()) {
        slices.set(`${column}: ${value}`, (sample) => sample.groups[column] === value);
      }
    }
    return slices;
  };

  // How much the arm's own reward rates its response above that of the other policy.
  report.rewardGain = (sample, [first, second]) => {
    const [own, other] = [first, second].map((name) => valueOf(valueOf(sample.responses, name)?.[1], first));
    return own === undefined || other === undefined ? null : own - other;
  };

  // Orders of the list by name: the number that it is sorted by, the smallest first.
  report.sortings = new Map([
    ["number", (sample) => sample.number],
    ["first wins most", (s, verdict) => (verdict?.probability == null ? 2 : 1 - verdict.probability)],
    ["first loses most", (s, verdict) => verdict?.probability ?? 2],
    ["closest", (s, verdict) => (verdict?.probability == null ? 2 : Math.abs(verdict.probability - 0.5))],
    ["orders differ most", (s, v) => (v && hasBoth(v.orders) ? -Math.abs(v.orders[0] - v.orders[1]) : 1)],
    ["reward rose most", (s, v, names) => -(report.rewardGain(s, names) ?? -Infinity)],
    ["reward fell most", (s, v, names) => report.rewardGain(s, names) ?? Infinity],
  ]);

  // All texts of a sample in lower case, made when they are first searched.
  function searchable(sample) {
    if (sample.searchable === undefined) {
      const responses = Object.values(sample.responses).map((response) => response[0]);
      const rationales = sample.verdicts.flatMap((verdict) => verdict[4].flat());
      const texts = [sample.id, sample.prompt, sample.reference ?? "", ...responses, ...rationales];
      sample.searchable = texts.join("\n").toLowerCase();
    }
    return sample.searchable;
  }

  // Choose samples. `filter` has matchup, judge (numbers), outcome, slice, sort and q (texts).
  report.chooseSamples = (data, slices, filter) => {
    const names = data.matchups[filter.matchup] ?? [];
    const words = filter.q.toLowerCase().split(/\s+/).filter(Boolean);
    const slice = slices.get(filter.slice);
    const key = report.sortings.get(filter.sort) ?? report.sortings.get("number");
    const found = [];
    for (const sample of data.samples) {
      const verdict = report.findVerdict(sample, filter.matchup, filter.judge);
      if (filter.outcome && report.nameOutcome(verdict) !== filter.outcome) continue;
      if (slice && !slice(sample, verdict, names, filter.matchup)) continue;
      if (words.length && !words.every((word) => searchable(sample).includes(word))) continue;
      found.push([key(sample, verdict, names), sample]);
    }
    found.sort((a, b) => a[0] - b[0] || a[1].number - b[1].number);
    return found.map(([, sample]) => sample);
  };
})();
