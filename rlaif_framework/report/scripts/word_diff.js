// Differences between two texts, word by word.
(() => {
  "use strict";
  const report = globalThis.rlaifReport;
  const MAX_WORDS = 1500; // longer texts are shown without differences

  const split = (text) => text.match(/\s+|[\p{L}\p{N}_'’]+|[^\s\p{L}\p{N}_]/gu) ?? [];

  // Lengths of the longest common subsequence of all ends of the two lists.
  function commonLengths(a, b) {
    const width = b.length + 1;
    const lengths = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        lengths[i * width + j] =
          a[i] === b[j]
            ? lengths[(i + 1) * width + j + 1] + 1
            : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
      }
    }
    return lengths;
  }

  // Returns [kind, text] pairs of kind "same", "removed" or "added"; null if the texts are too long.
  report.compareWords = (before, after) => {
    const [a, b] = [split(before), split(after)];
    if (a.length > MAX_WORDS || b.length > MAX_WORDS) return null;
    const lengths = commonLengths(a, b);
    const width = b.length + 1;
    const parts = [];
    const add = (kind, word) => {
      const last = parts.at(-1);
      if (last?.[0] === kind) last[1] += word;
      else parts.push([kind, word]);
    };
    let [i, j] = [0, 0];
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        add("same", a[i++]);
        j++;
      } else if (j === b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
        add("removed", a[i++]);
      } else {
        add("added", b[j++]);
      }
    }
    return parts;
  };
})();
