"use strict";
// What scripts of every page stand on. The files of a page follow in the same element.

/** The data that stands in the page under this id. */
function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new element with attributes and children, each an element or text: `element("td", {class: "number"}, "3.5")`.
 * Names that begin with `svg:` make elements of a drawing. Attributes with the value null or false are left out, true
 * gives an empty one; functions listen, `{onclick: …}`. Text never becomes markup.
 */
function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      made.addEventListener(key.replace(/^on/, ""), value);
    } else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(key, value === true ? "" : String(value));
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// What is folded away on the screen stands on paper, and is folded again afterwards.
const unfolded = new Set();
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details.prints:not([open])")) {
    details.open = true;
    unfolded.add(details);
  }
});
window.addEventListener("afterprint", () => {
  for (const details of unfolded) {
    details.open = false;
  }
  unfolded.clear();
});
