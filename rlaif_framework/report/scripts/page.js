// What every page does: show what needs scripts, mark the section being read, copy texts.
(() => {
  "use strict";
  const report = (globalThis.rlaifReport = {});

  // Create an element with a class and a text. Texts of users are only ever set as text.
  report.make = (tag, className = "", text = "") => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== "") element.textContent = text;
    return element;
  };

  function markSection() {
    const links = new Map(
      [...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]),
    );
    const watcher = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          for (const link of links.values()) link.removeAttribute("aria-current");
          const link = links.get(entry.target.id);
          link.setAttribute("aria-current", "true");
          const list = link.closest("ul"); // a line that is scrolled, on narrow screens
          list.scrollLeft = link.offsetLeft - (list.clientWidth - link.offsetWidth) / 2;
        }
      },
      { rootMargin: "0px 0px -75% 0px" }, // the section at the top of the window
    );
    for (const id of links.keys()) {
      const section = document.getElementById(id);
      if (section) watcher.observe(section);
    }
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // Without access to the clipboard: select the text, so that one key copies it.
      source.closest("details").open = true;
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
  }

  document.documentElement.classList.add("js");
  markSection();
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button));
  }
})();
