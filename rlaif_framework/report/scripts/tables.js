// Tables that are sorted by a click on a heading, or by Enter and Space on it.
(() => {
  "use strict";
  const { make } = globalThis.rlaifReport;

  // The number that a cell starts with; null if there is none.
  function readNumber(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const found = /^\s*([+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?)/i.exec(cell.textContent);
    return found ? Number(found[1].replaceAll(",", "")) : null;
  }

  // Whether a column has numbers only, besides cells without a value.
  function isNumeric(cells) {
    const filled = cells.filter((cell) => !["", "-", "not measured"].includes(cell.textContent.trim()));
    return filled.length > 0 && filled.every((cell) => readNumber(cell) !== null);
  }

  // Compare two cells; those without a value come last in both directions.
  function compare(first, second, direction, numeric) {
    if (!numeric) return direction * first.textContent.trim().localeCompare(second.textContent.trim());
    const [a, b] = [readNumber(first), readNumber(second)];
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * (a - b);
  }

  function sort(table, index) {
    const heading = table.tHead.rows[0].cells[index];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const numeric = isNumeric(rows.map((row) => row.cells[index]));
    // Numbers start with the largest, texts with the first letter.
    const initial = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === initial ? other : initial;
    const direction = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => compare(a.cells[index], b.cells[index], direction, numeric));
    body.append(...rows);
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      const button = make("button", "", heading.textContent.trim());
      button.type = "button";
      button.addEventListener("click", () => sort(table, index));
      heading.replaceChildren(button);
    });
  }
})();
