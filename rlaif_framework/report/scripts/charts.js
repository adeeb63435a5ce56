// Draw the charts when they come into view. Expressions are interpreted, because the page forbids eval.
(() => {
  "use strict";
  const report = globalThis.rlaifReport;
  const specs = JSON.parse(document.getElementById("chart-specs").textContent);
  const plots = [...document.querySelectorAll("[data-chart]")];
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true,
    expr: vegaInterpreter.expressionInterpreter,
    defaultStyle: false, // the page has its own, and allows no other
    tooltip: { disableDefaultStyle: true },
  };
  // What is called with the datum of a mark that is clicked.
  report.chartListeners = [];

  async function draw(plot) {
    const spec = specs[plot.dataset.chart];
    if (!spec || plot.dataset.drawn) return;
    plot.dataset.drawn = "drawing";
    const { view } = await vegaEmbed(plot, spec, options);
    // The element around it has a text; hundreds of marks without one would only hide it.
    plot.querySelector("svg").setAttribute("aria-hidden", "true");
    view.addEventListener("click", (event, item) => {
      if (item?.datum) for (const listener of report.chartListeners) listener(item.datum);
    });
    plot.dataset.drawn = "done";
  }

  // One after the other, with time to paint the page between them, so that it scrolls smoothly.
  let drawn = Promise.resolve();
  function enqueue(plot) {
    drawn = drawn.then(() => draw(plot)).catch(reportError).then(() => new Promise((done) => setTimeout(done)));
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        enqueue(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  for (const plot of plots) {
    // Room for axes and legend, so that the page does not move when a chart is drawn.
    plot.style.minHeight = `${specs[plot.dataset.chart].height + 75}px`;
    watcher.observe(plot);
  }
  // A page is printed whole.
  addEventListener("beforeprint", () => plots.filter((plot) => plot.clientWidth).forEach(draw));
})();
