"use strict";
// Tables that sort by a click on their headings, and the protocols behind their buttons.

function cellValue(row, column, kind) {
  const text = row.cells[column].dataset.value ?? "";
  return kind === "number" ? (text === "" ? null : Number(text)) : text;
}

function sortTable(table, header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const column = [...header.parentElement.cells].indexOf(header);
  const kind = header.dataset.kind;
  const collator = new Intl.Collator(undefined, { numeric: true });
  const rows = [...table.tBodies[0].rows].map((row) => [cellValue(row, column, kind), row]);
  rows.sort(([first], [second]) => {
    if (first === null || second === null) return (first === null) - (second === null);
    const order = kind === "number" ? first - second : collator.compare(first, second);
    return ascending ? order : -order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of header.parentElement.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

function setUpProtocols() {
  const close = (except) => {
    for (const holder of document.querySelectorAll(".protocol.open")) {
      if (holder !== except) toggle(holder, false);
    }
  };
  const toggle = (holder, open) => {
    holder.classList.toggle("open", open);
    holder.classList.toggle("closed", !open);
    holder.querySelector("button").setAttribute("aria-expanded", String(open));
  };
  for (const holder of document.querySelectorAll(".protocol")) {
    const button = holder.querySelector("button");
    button.addEventListener("click", () => {
      close(holder);
      toggle(holder, !holder.classList.contains("open"));
    });
    // Once the pointer and the focus are gone, hovering and focusing show it again.
    holder.addEventListener("mouseleave", () => holder.classList.remove("closed"));
    button.addEventListener("blur", () => holder.classList.remove("closed"));
    holder.addEventListener("keydown", (event) => {
      if (event.key === "Escape") toggle(holder, false);
    });
  }
  document.addEventListener("click", (event) => close(event.target.closest(".protocol")));
}

document.addEventListener("DOMContentLoaded", () => {
  for (const header of document.querySelectorAll("th[data-kind]")) {
    header.querySelector("button").addEventListener("click", () => sortTable(header.closest("table"), header));
  }
  setUpProtocols();
});
