// A list of any length, of which only the rows in view are elements of the page.
(() => {
  "use strict";
  const report = globalThis.rlaifReport;
  const { make } = report;
  const HEIGHT = 64; // pixels of a row, as in the style sheet
  const BEYOND = 6; // rows that are kept above and below the view

  // `fill(row, item)` fills a row; `choose(index)` is called for the row that is chosen.
  report.VirtualList = class {
    constructor(element, fill, choose) {
      this.element = element;
      this.fill = fill;
      this.choose = choose;
      this.items = [];
      this.selected = -1;
      this.rows = make("div", "rows");
      this.rows.setAttribute("role", "presentation");
      element.append(this.rows);
      element.addEventListener("scroll", () => this.draw(), { passive: true });
      element.addEventListener("click", (event) => {
        const row = event.target.closest(".row");
        if (row) this.choose(Number(row.dataset.index));
      });
      element.addEventListener("keydown", (event) => this.press(event));
      new ResizeObserver(() => this.draw()).observe(element);
    }

    show(items, selected) {
      this.items = items;
      this.rows.style.height = `${items.length * HEIGHT}px`;
      this.select(selected);
    }

    // Mark a row and scroll it into view.
    select(index) {
      this.selected = index;
      const { element } = this;
      const top = index * HEIGHT;
      if (index < 0) element.scrollTop = 0;
      else if (top < element.scrollTop) element.scrollTop = top;
      else if (top + HEIGHT > element.scrollTop + element.clientHeight) {
        element.scrollTop = top + HEIGHT - element.clientHeight;
      }
      this.draw();
    }

    draw() {
      const { scrollTop, clientHeight } = this.element;
      const start = Math.max(0, Math.floor(scrollTop / HEIGHT) - BEYOND);
      const end = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / HEIGHT) + BEYOND);
      const drawn = [];
      for (let index = start; index < end; index++) drawn.push(this.makeRow(index));
      this.rows.replaceChildren(...drawn);
      const visible = this.selected >= start && this.selected < end;
      if (visible) this.element.setAttribute("aria-activedescendant", `sample-row-${this.selected}`);
      else this.element.removeAttribute("aria-activedescendant");
    }

    makeRow(index) {
      const row = make("div", "row");
      row.id = `sample-row-${index}`;
      row.style.top = `${index * HEIGHT}px`;
      row.dataset.index = index;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(index === this.selected));
      row.setAttribute("aria-setsize", this.items.length);
      row.setAttribute("aria-posinset", index + 1);
      this.fill(row, this.items[index]);
      return row;
    }

    press(event) {
      const page = Math.max(1, Math.floor(this.element.clientHeight / HEIGHT) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      const step = steps[event.key];
      if (step === undefined || !this.items.length) return;
      event.preventDefault();
      this.choose(Math.min(this.items.length - 1, Math.max(0, this.selected + step)));
    }
  };
})();
