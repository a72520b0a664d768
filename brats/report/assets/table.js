// The table of cases: sorting, filters and the choice of a metric; and the buttons that copy text.
"use strict";

const DATA = JSON.parse(document.getElementById("report-data").textContent);

function caseTable() {
  const table = document.getElementById("case-table");
  if (!table) return;
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const metric = document.getElementById("metric");
  const inputs = { text: "filter-text", split: "filter-split", dice: "filter-dice" };
  for (const key of Object.keys(inputs)) inputs[key] = document.getElementById(inputs[key]);

  function valueOf(row, column) {
    const text = row.cells[column].dataset.value, value = Number(text);
    return text === "" ? null : column > 2 ? value : text;
  }

  function sortBy(column, ascending) {
    const rows = [...body.rows].sort((one, other) => {
      const a = valueOf(one, column), b = valueOf(other, column);
      if (a === null || b === null) return (a === null) - (b === null); // undefined values stay at the end
      const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
      return ascending ? order : -order;
    });
    body.append(...rows);
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }

  function filter() {
    const wanted = inputs.text.value.trim().toLowerCase();
    const highest = inputs.dice.value === "" ? Infinity : Number(inputs.dice.value);
    let shown = 0;
    for (const row of body.rows) {
      const [id, patient, split] = [0, 1, 2].map((column) => row.cells[column].dataset.value);
      const fits = (id + "\n" + patient).toLowerCase().includes(wanted)
        && (inputs.split.value === "" || split === inputs.split.value) && valueOf(row, 3) <= highest;
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("n-shown").value = `${shown} of ${body.rows.length} cases`;
  }

  function choose() {
    const chosen = DATA.metrics.find((entry) => entry.name === metric.value);
    const first = heads.findIndex((head) => head.classList.contains("metric"));
    for (const [region, head] of heads.slice(first).entries()) {
      head.firstChild.textContent = `${chosen.name} ${head.dataset.region}`;
      head.removeAttribute("aria-sort");
      for (const row of body.rows) {
        const cell = row.cells[first + region], value = DATA.values[row.dataset.case][chosen.name][region];
        cell.dataset.value = value === null ? "" : value;
        cell.textContent = value === null ? "–" : value.toLocaleString("en", {
          minimumFractionDigits: chosen.digits, maximumFractionDigits: chosen.digits });
      }
    }
    document.querySelector("#cases .convention").textContent =
      chosen.convention ? `${chosen.name}: ${chosen.convention}` : "";
  }

  for (const [column, head] of heads.entries()) {
    head.firstChild.addEventListener("click", () => sortBy(column, head.getAttribute("aria-sort") !== "ascending"));
  }
  for (const input of Object.values(inputs)) input.addEventListener("input", filter);
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  metric.addEventListener("change", choose);
  heads[3].setAttribute("aria-sort", "ascending"); // as the page lists them
  choose();
  filter();
}

function copiers() {
  for (const button of document.querySelectorAll(".copier")) {
    button.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl+C"; // works from disk, too
    });
  }
}

caseTable();
copiers();
