"use strict";
document.documentElement.classList.add("js");

// A click on a head sorts the models; the lines of real images stay first and last.
for (const table of document.querySelectorAll("table.cards")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, place) => {
    const cell = row.cells[place];
    if (cell.matches("th")) return cell.textContent;
    if (cell.matches(".rank")) return Number(cell.dataset.place);
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const sorted = (rows, place, up) => rows.sort((one, other) => {
    const a = key(one, place), b = key(other, place);
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return up ? order : -order;
  });
  [...body.rows].forEach((row, place) => {
    const rank = row.querySelector("td.rank");
    if (rank) rank.dataset.place = place;
  });
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : head.dataset.better !== "higher";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const floor = body.querySelector("tr.floor");
      for (const row of sorted([...body.querySelectorAll("tr.model")], place, up))
        body.insertBefore(row, floor);
    });
  });
}

// The images of two rows lie on each other, and a range wipes between them.
const compare = document.getElementById("compare");
if (compare) {
  const wipes = compare.querySelector(".wipes");
  const range = compare.querySelector("input");
  const chosen = ["left", "right"].map(side => compare.querySelector("select." + side));
  const found = name => [...document.querySelectorAll("img[data-row]")]
    .filter(image => image.dataset.row === name);
  const copy = (image, side) => {
    const shown = document.createElement("img");
    shown.src = image.src;
    shown.alt = image.alt;
    shown.className = side;
    shown.draggable = false;
    return shown;
  };
  const cut = () => wipes.style.setProperty("--cut", range.value + "%");
  const draw = () => {
    const [left, right] = chosen.map(list => found(list.value));
    wipes.replaceChildren();
    for (const image of left) {
      const other = right.find(one => one.dataset.caption === image.dataset.caption);
      if (!other) continue;
      const wipe = document.createElement("figure");
      wipe.className = image.closest(".small") ? "small wipe" : "wipe";
      const words = document.createElement("p");
      words.append(...[...image.closest(".caption").querySelector("p").cloneNode(true).childNodes]);
      wipe.append(copy(other, "right"), copy(image, "left"), words);
      wipe.addEventListener("pointermove", event => {
        if (event.pointerType === "mouse" && !event.buttons) return;
        const box = wipe.getBoundingClientRect();
        range.value = 100 * (event.clientX - box.left) / box.width;
        cut();
      });
      wipes.append(wipe);
    }
  };
  chosen.forEach(list => list.addEventListener("change", draw));
  range.addEventListener("input", cut);
  compare.hidden = false;
  cut();
  draw();
}

// Escape closes an enlarged image.
document.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  for (const open of document.querySelectorAll(".zoom input:checked")) open.checked = false;
});
