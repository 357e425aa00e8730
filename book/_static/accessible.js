// Panel draws its widgets in shadow roots and leaves the handles of its sliders without a name. A screen reader is told
// the slider's own title. Widgets appear when Bokeh has drawn them, so the page is looked through again for a while.
// The entries of the bibliography get the role that belongs in a list.
(() => {
  function* elements(root) {
    for (const element of root.querySelectorAll("*")) {
      yield element;
      if (element.shadowRoot) yield* elements(element.shadowRoot);
    }
  }

  function nameSliders() {
    for (const element of elements(document)) {
      if (element.getAttribute("role") !== "slider" || element.hasAttribute("aria-label")) continue;
      const widget = element.closest(".bk-input-group") || element.getRootNode();
      const title = widget.querySelector(".bk-slider-title");
      element.setAttribute("aria-label", (title && title.textContent.trim()) || "slider");
    }
  }

  window.addEventListener("load", () => {
    for (const entry of document.querySelectorAll("[role=doc-biblioentry]")) entry.setAttribute("role", "listitem");
    const started = Date.now();
    const timer = setInterval(() => {
      nameSliders();
      if (Date.now() - started > 20000) clearInterval(timer);
    }, 500);
  });
})();
