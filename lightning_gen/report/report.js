"use strict";
// Sorting, filtering, protocols and pictures of the leaderboard; the tables are in the page without it.

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

function applyFilter() {
  const read = (name) => document.getElementById(`filter-${name}`).value;
  const words = read("text").toLowerCase().split(/\s+/).filter(Boolean);
  const [data, model, score] = [read("data"), read("model"), read("score")];
  const fits = (element) =>
    (!data || element.dataset.data === data) &&
    (!model || element.dataset.model === model) &&
    words.every((word) => element.dataset.text.includes(word));
  let entries = 0;
  let boards = 0;
  document.querySelectorAll(".board").forEach((board, number) => {
    const wanted = !score || board.dataset.score === score;
    let shown = 0;
    for (const row of board.querySelectorAll("tbody tr")) {
      row.hidden = !(wanted && fits(row));
      shown += !row.hidden;
    }
    board.hidden = !shown;
    entries += shown;
    boards += shown > 0;
    if (shown && visibleBoards.has(board)) drawBoard(number);
  });
  for (const card of document.querySelectorAll(".card-run")) card.hidden = !fits(card);
  const gallery = document.querySelector(".gallery");
  if (gallery) gallery.hidden = !gallery.querySelector(".card-run:not([hidden])");
  document.getElementById("nothing").hidden = boards > 0;
  document.getElementById("shown").textContent =
    `${entries} ${entries === 1 ? "entry" : "entries"} on ${boards} ${boards === 1 ? "board" : "boards"}`;
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

function setUpPictures() {
  const dialog = document.getElementById("zoom");
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".zoom");
    if (!button) {
      if (event.target === dialog) dialog.close();
      return;
    }
    const picture = button.querySelector("img");
    dialog.querySelector("img").src = picture.src;
    dialog.querySelector("img").alt = picture.alt;
    dialog.querySelector("p").textContent = picture.alt;
    dialog.showModal();
  });
}

const visibleBoards = new Set();

function setUpCharts() {
  const numbers = new Map([...document.querySelectorAll(".board")].map((board, number) => [board, number]));
  const observer = new IntersectionObserver(
    (seen) => {
      for (const { target, isIntersecting } of seen) {
        if (!isIntersecting || visibleBoards.has(target)) continue;
        visibleBoards.add(target);
        drawBoard(numbers.get(target));
      }
    },
    { rootMargin: "600px" },
  );
  for (const board of numbers.keys()) observer.observe(board);
  window.addEventListener("beforeprint", () => {
    for (const [board, number] of numbers) {
      visibleBoards.add(board);
      drawBoard(number);
    }
  });
}

document.addEventListener("DOMContentLoaded", () => {
  for (const header of document.querySelectorAll("th[data-kind]")) {
    header.querySelector("button").addEventListener("click", () => sortTable(header.closest("table"), header));
  }
  document.querySelector(".filters").addEventListener("input", applyFilter);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  setUpProtocols();
  setUpPictures();
  setUpCharts();
  applyFilter();
});
