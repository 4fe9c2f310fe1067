// A run in the legend lights its curves: under the mouse or the focus for as long as it is there, after a click for good.
for (const legend of document.querySelectorAll(".legend")) {
  const section = legend.closest("section");
  const entries = [...legend.querySelectorAll("button")];

  function light(entry) {
    section.classList.toggle("focused", entry !== undefined);
    for (const series of section.querySelectorAll(".figures .series")) {
      series.classList.toggle("lit", entry !== undefined && series.classList.contains(`r${entry.dataset.run}`));
    }
  }
  function pressed() {
    return entries.find((entry) => entry.getAttribute("aria-pressed") === "true");
  }
  for (const entry of entries) {
    entry.addEventListener("mouseenter", () => light(entry));
    entry.addEventListener("focus", () => light(entry));
    entry.addEventListener("mouseleave", () => light(pressed()));
    entry.addEventListener("blur", () => light(pressed()));
    entry.addEventListener("click", () => {
      const was = entry === pressed();
      for (const other of entries) {
        other.setAttribute("aria-pressed", String(other === entry && !was));
      }
      light(pressed());
    });
  }
}
