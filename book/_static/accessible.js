// Panel draws its widgets in shadow roots and leaves the handles of its sliders without a name. A screen reader is told
// the slider's own title. Widgets appear when Bokeh has drawn them, so the page is looked through again for a while.
// The entries of the bibliography get the role that belongs in a list, and folds of the table of contents a name.
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
    for (const fold of document.querySelectorAll("nav summary")) fold.setAttribute("aria-label", "pages of this part");
    for (const entry of document.querySelectorAll("[role=doc-biblioentry]")) entry.setAttribute("role", "listitem");
    const started = Date.now();
    const timer = setInterval(() => {
      nameSliders();
      if (Date.now() - started > 20000) clearInterval(timer);
    }, 500);
  });
})();

// A term tells a pointer its meaning by its title. Whoever taps it, or comes by keyboard, reads the same at the foot of the
// window, with a link to the glossary; a tap elsewhere, Escape or the next focus closes it.
(() => {
  let touched = false, card = null;

  function close() {
    if (card) card.remove();
    card = null;
  }

  function tell(link) {
    close();
    card = document.createElement("div");
    card.className = "fb-meaning";
    card.setAttribute("role", "status");
    const word = document.createElement("strong"), more = document.createElement("a");
    word.textContent = link.textContent.trim();
    more.href = link.href;
    more.textContent = "Glossary";
    card.append(word, `: ${link.title} `, more);
    document.body.append(card);
  }

  const term = (event) => event.target.closest("a[title]:has(.std-term)");
  document.addEventListener("pointerdown", (event) => (touched = event.pointerType !== "mouse"), true);
  document.addEventListener("keydown", (event) => {
    touched = false;
    if (event.key === "Escape") close();
  }, true);
  document.addEventListener("click", (event) => {
    const link = touched && term(event);
    if (link) {
      event.preventDefault();
      tell(link);
    } else if (card && !card.contains(event.target)) close();
  });
  document.addEventListener("focusin", (event) => {
    if (touched) return;
    const link = term(event);
    if (link && link.matches(":focus-visible")) tell(link);
    else if (card && !card.contains(event.target)) close();
  });
})();
