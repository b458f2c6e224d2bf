"use strict";
// Filtering and pictures of the leaderboard; the tables are in the page without it.

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
  document.querySelector(".filters").addEventListener("input", applyFilter);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  setUpPictures();
  setUpCharts();
  applyFilter();
});
