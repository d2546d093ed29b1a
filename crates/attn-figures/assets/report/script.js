// What a page of HTML cannot do by itself: switch colours, copy tables, and sort and filter the rows. No library, no
// network; without it everything above stays readable.
"use strict";

const el = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const byId = (id) => document.getElementById(id);

// Colours.
{
  const root = document.documentElement, button = byId("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const show = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("attn-bench-theme", root.dataset.theme); } catch (error) { /* no storage */ }
    show();
  });
  dark.addEventListener("change", show);
  show();
}

// Copies.
const csvCell = (value) => {
  const text = value === null || value === undefined ? "" : String(value).replaceAll("\u00a0", " ");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (lines) => lines.map((line) => line.map(csvCell).join(",")).join("\n") + "\n";

const copy = async (text, button) => {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    const area = el("textarea", { value: text });
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const name = button.dataset.name ??= button.textContent;
  button.textContent = done ? "Copied" : "Could not copy";
  setTimeout(() => { button.textContent = name; }, 1500);
};

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const rows = [...button.closest(".tabled").querySelectorAll("tr")];
    copy(csv(rows.map((row) => [...row.cells].map((cell) => cell.textContent))), button);
  });
}

// Figures of the same digits as in the rest of the page: the unit is the end of a column's name.
// What lies exactly between two numbers goes to the even one, as in the part of the page that needs no script.
const fixed = (value, decimals) => {
  const text = value.toFixed(decimals);
  const exact = value.toFixed(Math.min(100, decimals + 40));
  const rest = exact.slice(exact.indexOf(".") + 1 + decimals);
  if (!/^50*$/.test(rest) || Number(text.at(-1)) % 2 === 0) return text;
  const step = 10 ** -decimals;
  return (value - Math.sign(value) * step / 2).toFixed(decimals);
};
const significant = (value, digits, trim) => {
  if (value === 0) return "0";
  const decimals = (v) => Math.min(15, Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(v)))));
  let text = fixed(value, decimals(value));
  if (Number(text) !== 0) text = fixed(value, decimals(Number(text)));
  return trim && text.includes(".") ? text.replace(/\.?0+$/, "") : text;
};
const scaled = (value, steps, digits) => {
  const [size, name] = steps.find(([size]) => value >= size * 0.999999) ?? steps.at(-1);
  return `${significant(value / size, digits, true)}\u00a0${name}`;
};
const bytes = (value, digits) => {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1023.999 && at + 1 < names.length) { value /= 1024; at += 1; }
  return `${significant(value, digits, true)}\u00a0${names[at]}`;
};
const plain = (value) => {
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  const rounded = Number(value.toExponential(4));
  const written = rounded.toString().includes("e")
    ? withoutExponent(rounded) : rounded.toString();
  const scientific = rounded.toExponential().replace("e+", "e");
  return scientific.length + 2 < written.length ? scientific : written;
};
function withoutExponent(value) {
  const places = Math.max(0, -Math.floor(Math.log10(Math.abs(value)))) + 5;
  return value.toFixed(Math.min(100, places)).replace(/\.?0+$/, "");
}
const written = (name, value) => {
  if (value === null) return "";
  if (typeof value === "string") return value;
  if (name.endsWith("bytes_per_s")) return value === 0 ? "0/s" : `${bytes(value, 3)}/s`;
  if (name.endsWith("flops_per_s")) return scaled(value, [[1e12, "TFLOP/s"], [1e9, "GFLOP/s"], [1e6, "MFLOP/s"], [1, "FLOP/s"]], 3);
  if (name.endsWith("_per_s")) {
    if (value < 100) return significant(value, 3, true);
    const whole = fixed(value, 0);
    return whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u2009") : whole;
  }
  if (name.endsWith("_bytes") || name === "bytes_moved") return value === 0 ? "0" : bytes(value, 4);
  if (name.endsWith("_s")) return value === 0 ? "0" : scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]], 3);
  return plain(value);
};

// Rows.
{
  const PAGE = 100;
  const data = JSON.parse(byId("packed").textContent);
  const columns = data.columns.map((column) => ({
    name: column.name,
    doc: column.doc,
    isText: column.text,
    isShown: column.shown,
    value: "all" in column ? () => column.all
      : "words" in column ? (row) => column.words[column.at[row]]
      : (row) => column.values[row],
  }));
  const find = (name) => columns.find((column) => column.name === name);
  const state = { sort: null, isDown: false, text: "", chosen: new Map(), from: 0, rows: [] };
  const table = byId("row-table"), status = byId("row-status");
  const shown = () => columns.filter((column) => column.isShown);

  // `variant=mla,context>=2048`, else words that must all be there.
  const CONDITION = /^\s*([A-Za-z_][A-Za-z0-9_]*)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*$/;
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
  const TESTS = {
    "=": (order) => order === 0, "!=": (order) => order !== 0,
    ">": (order) => order > 0, "<": (order) => order < 0,
    ">=": (order) => order >= 0, "<=": (order) => order <= 0,
  };
  const condition = (part) => {
    const [, name, operator, wanted] = CONDITION.exec(part);
    const column = find(name);
    if (!column) throw new Error(`there is no column ${name} on this page`);
    const number = Number(wanted);
    const isNumber = !column.isText && wanted !== "";
    if (isNumber && Number.isNaN(number)) throw new Error(`${name} holds numbers, and ${wanted} is none`);
    return (row) => {
      const value = column.value(row);
      if (value === null) return false;
      return isNumber ? TESTS[operator](value - number) : TESTS[operator](compare(String(value).toLowerCase(), wanted.toLowerCase()));
    };
  };
  const test = (text) => {
    if (!text.trim()) return () => true;
    if (CONDITION.test(text)) {
      const all = text.split(",").filter((part) => part.trim()).map((part) => {
        if (!CONDITION.test(part)) throw new Error(`${part.trim()} is no condition such as variant=mla`);
        return condition(part);
      });
      return (row) => all.every((one) => one(row));
    }
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (row) => {
      const line = shown().map((column) => written(column.name, column.value(row))).join(" ").toLowerCase().replaceAll("\u00a0", " ");
      return words.every((word) => line.includes(word));
    };
  };

  const select = () => {
    let accepts;
    try {
      accepts = test(state.text);
      status.classList.remove("bad");
    } catch (error) {
      status.classList.add("bad");
      status.textContent = error.message;
      return false;
    }
    const chosen = [...state.chosen].map(([name, wanted]) => [find(name), wanted]);
    state.rows = [];
    for (let row = 0; row < data.rows; row += 1) {
      if (chosen.every(([column, wanted]) => column.value(row) === wanted) && accepts(row)) state.rows.push(row);
    }
    if (state.sort) {
      const { value } = state.sort, sign = state.isDown ? -1 : 1;
      // Empty cells come last whichever way; equal ones keep the order of the run.
      state.rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * compare(x, y) || a - b;
      });
    }
    return true;
  };

  const head = () => {
    const cells = shown().map((column) => {
      const isSorted = state.sort === column;
      const button = el("button", { type: "button", title: column.doc }, column.name, isSorted ? (state.isDown ? " ▼" : " ▲") : "");
      button.addEventListener("click", () => {
        state.isDown = isSorted && !state.isDown;
        state.sort = column;
        state.from = 0;
        refresh();
        [...table.tHead.querySelectorAll("button")].find((other) => other.dataset.column === column.name)?.focus();
      });
      button.dataset.column = column.name;
      const cell = el("th", { scope: "col", className: column.isText ? "" : "n" }, button);
      if (isSorted) cell.setAttribute("aria-sort", state.isDown ? "descending" : "ascending");
      return cell;
    });
    table.tHead.replaceChildren(el("tr", {}, ...cells));
  };

  const body = () => {
    const own = shown(), last = Math.min(state.from + PAGE, state.rows.length);
    const lines = state.rows.slice(state.from, last).map((row) => el("tr", {}, ...own.map((column) => {
      const text = written(column.name, column.value(row));
      return el("td", { className: !column.isText ? "n" : text.length > 40 ? "long" : "" }, text);
    })));
    table.tBodies[0].replaceChildren(...lines);
    const range = state.rows.length > PAGE ? `, ${state.from + 1} to ${last} shown` : "";
    status.textContent = `${state.rows.length} of ${data.rows} rows${range}`;
    byId("row-before").disabled = state.from === 0;
    byId("row-after").disabled = last >= state.rows.length;
  };

  const refresh = () => {
    if (!select()) return;
    head();
    body();
  };

  // Choices of words with few values.
  for (const name of ["run", "variant", "workload", "task", "scope", "dtype_resolved", "path_resolved", "status", "trust"]) {
    const column = find(name);
    if (!column) continue;
    const values = [...new Set(Array.from({ length: data.rows }, (_, row) => column.value(row)))].filter((value) => value !== null).sort();
    if (values.length < 2 || values.length > 40) continue;
    const choice = el("select", {}, el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, value)));
    choice.addEventListener("change", () => {
      if (choice.selectedIndex === 0) state.chosen.delete(name);
      else state.chosen.set(name, values[choice.selectedIndex - 1]);
      state.from = 0;
      refresh();
    });
    byId("row-selects").append(el("label", {}, name.replace("_resolved", ""), choice));
  }
  for (const column of columns) {
    const box = el("input", { type: "checkbox", checked: column.isShown });
    box.addEventListener("change", () => { column.isShown = box.checked; refresh(); });
    byId("row-columns").append(el("label", { title: column.doc }, box, " ", column.name));
  }
  let timer = 0;
  byId("row-filter").addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => { state.text = event.target.value; state.from = 0; refresh(); }, 120);
  });
  const turn = (pages) => () => {
    state.from = Math.max(0, state.from + pages * PAGE);
    body();
    byId("row-box").scrollTop = 0;
  };
  byId("row-before").addEventListener("click", turn(-1));
  byId("row-after").addEventListener("click", turn(1));
  const lines = (own) => [own.map((column) => column.name), ...state.rows.map((row) => own.map((column) => column.value(row)))];
  byId("row-copy").addEventListener("click", (event) => copy(csv(lines(shown())), event.target));
  byId("row-save").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([csv(lines(columns))], { type: "text/csv" }));
    el("a", { href: url, download: "rows.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  byId("row-tools").hidden = false;
  byId("row-pages").hidden = false;
  refresh();
}
