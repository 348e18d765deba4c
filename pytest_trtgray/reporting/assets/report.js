"use strict";
// Tables that can be sorted and searched, and the charts of a report. All data is in the element #data.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const { us, percent, color, element, added } = trtgray;
  const PAGE = 200, ALL_AT_ONCE = 1000;
  const OUTCOME_ORDER = ["slower", "new", "gone", "inconclusive", "faster", "pass"];
  const drawn = new Map();  // figures and their data

  function table(host, caption, columns, rows, { outcomes = false, sort = null, descending = true } = {}) {
    const state = { sort, descending, query: "", outcome: "", page: 0, size: PAGE };
    const body = element("tbody"), status = element("p", { role: "status", class: "muted" });
    const button = (text, action) => element("button", { type: "button", onclick: () => { action(); draw(); } }, text);
    const previous = button("Previous rows", () => { state.page -= 1; }), next = button("Next rows", () => { state.page += 1; });
    const all = button("Show all rows", () => { state.size = Infinity; state.page = 0; });
    const heads = columns.map((column) => element("th", { scope: "col", class: column.text ? column.long ? "text long" : "text" : null },
      button(column.title, () => {
        state.descending = state.sort === column ? !state.descending : !column.text;
        state.sort = column;
        state.page = 0;
      })));
    const haystack = rows.map((row) => columns.filter((column) => column.text).map((column) => column.show(row)).join(" ").toLowerCase());
    const value = (column) => column.value ?? column.show;
    function found() {
      const kept = rows.filter((row, index) => (!state.query || haystack[index].includes(state.query)) && (!state.outcome || row.outcome === state.outcome));
      if (!state.sort) return kept;
      const of = value(state.sort), sign = state.descending ? -1 : 1;
      return kept.map((row) => [of(row), row]).sort(([left], [right]) => {
        if (left == null || right == null || left === "" || right === "") return (left == null || left === "") - (right == null || right === "");
        return sign * (typeof left === "string" ? (left < right ? -1 : left > right ? 1 : 0) : left - right);
      }).map(([, row]) => row);
    }
    function draw() {
      columns.forEach((column, index) => {
        if (state.sort === column) heads[index].setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        else heads[index].removeAttribute("aria-sort");
      });
      const kept = found(), pages = Math.max(1, Math.ceil(kept.length / state.size));
      state.page = Math.min(Math.max(state.page, 0), pages - 1);
      const first = pages === 1 ? 0 : state.page * state.size, shown = kept.slice(first, pages === 1 ? kept.length : first + state.size);
      body.replaceChildren(...shown.map((row) => element("tr", {}, ...columns.map((column, index) => {
        const cell = element(index ? "td" : "th", { scope: index ? null : "row", class: column.text && index ? column.long ? "text long" : "text" : null }, column.show(row) ?? "");
        const name = column.tone?.(row);
        if (name) cell.classList.add(name);
        return cell;
      }))));
      status.textContent = pages > 1 ? `rows ${first + 1} to ${first + shown.length} of ${kept.length}` : `${kept.length} of ${rows.length} rows shown`;
      previous.disabled = state.page === 0;
      next.disabled = state.page >= pages - 1;
      previous.hidden = next.hidden = pages === 1;
      all.hidden = pages === 1 || kept.length > ALL_AT_ONCE;
    }
    const again = (change) => { change(); state.page = 0; draw(); };
    const tools = element("div", { class: "tools" }, element("label", {}, "Search",
      element("input", { type: "search", oninput: (event) => again(() => { state.query = event.target.value.toLowerCase(); }) })));
    const seen = outcomes ? OUTCOME_ORDER.filter((outcome) => rows.some((row) => row.outcome === outcome)) : [];
    if (seen.length) {
      const select = element("select", { onchange: (event) => again(() => { state.outcome = event.target.value; }) },
        element("option", { value: "" }, "all"), ...seen.map((outcome) => element("option", { value: outcome }, outcome)));
      tools.append(element("label", {}, "Verdict", select));
    }
    host.replaceChildren(...(rows.length > 8 ? [tools] : []),
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
        element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...heads)), body)),
      ...(rows.length > 8 ? [element("div", { class: "pages" }, status, previous, next, all)] : []));
    draw();
  }

  const WORDS = { slower: "bad", new: "doubt", gone: "doubt", inconclusive: "doubt", faster: "good" };

  const TABLES = {
    layers(host, { timing }) {
      const rows = timing.layers, judged = rows.some((row) => row.outcome), both = (row) => row.before_us && row.us;
      const columns = [
        { title: "Layer (ONNX nodes)", text: true, show: (row) => row.key },
        judged && { title: "Verdict", text: true, show: (row) => row.outcome, tone: (row) => WORDS[row.outcome] },
        judged && { title: "Before", show: (row) => us(row.before_us), value: (row) => row.before_us },
        { title: "Now", show: (row) => us(row.us), value: (row) => row.us },
        judged && { title: "Adds", show: (row) => row.before_us != null || row.outcome === "new" ? us(added(row), true) : "", value: added },
        judged && { title: "Change", show: (row) => both(row) ? percent(row.change) : "", value: (row) => both(row) ? row.change : null },
        judged && { title: "95 % interval", show: (row) => both(row) ? `${percent(row.low)} to ${percent(row.high)}` : "", value: (row) => both(row) ? row.low : null },
        { title: "Share", show: (row) => percent(row.share).replace("+", ""), value: (row) => row.share },
        { title: "Module", text: true, long: true, show: (row) => row.module },
        { title: "Type", text: true, show: (row) => row.kind },
        { title: "Precision", text: true, show: (row) => row.precision },
        rows.some((row) => row.bound) && { title: "Bound", text: true, show: (row) => row.bound ?? "" },
        rows.some((row) => row.roof_us) && { title: "Of the roof", show: (row) => row.roof_us && row.us ? percent(row.roof_us / row.us).replace("+", "") : "", value: (row) => row.roof_us && row.us ? row.roof_us / row.us : null },
      ].filter(Boolean);
      const sort = columns.find((column) => column.title === (judged ? "Adds" : "Now"));
      table(host, `${rows.length} layers; select a heading to sort`, columns, rows, { outcomes: judged, sort });
    },

    modules(host, { timing }) {
      const rows = timing.module_times ?? [], count = (value) => value == null ? "" : value >= 1e9 ? `${(value / 1e9).toPrecision(3)} G` : value >= 1e6 ? `${(value / 1e6).toPrecision(3)} M` : `${(value / 1e3).toPrecision(3)} k`;
      if (rows.length < 2) { host.remove(); return; }
      const now = { title: "Time", show: (row) => us(row.us), value: (row) => row.us };
      table(host, "Time by module; outer modules hold inner ones", [
        { title: "Module", text: true, long: true, show: (row) => row.module }, now,
        { title: "Share", show: (row) => percent(row.share).replace("+", ""), value: (row) => row.share },
        { title: "Layers", show: (row) => String(row.layers), value: (row) => row.layers },
        { title: "FLOP", show: (row) => count(row.flops), value: (row) => row.flops },
        { title: "Weights, bytes", show: (row) => count(row.weights_bytes), value: (row) => row.weights_bytes },
        { title: "Bound", text: true, show: (row) => row.bound === "unknown" ? "" : row.bound },
      ], rows, { sort: now });
    },

    structure(host, { structure }) {
      const changed = new Set(structure.changed);
      const rows = structure.layers.map((layer, index) => ({ ...layer, index, nodes: (layer.onnx ?? []).join(" + ") || layer.name }));
      const types = (tensors) => [...new Set((tensors ?? []).map((tensor) => tensor[1]))].join(", ");
      table(host, `${rows.length} layers in order of execution`, [
        { title: "Layer (ONNX nodes)", text: true, show: (row) => row.nodes },
        { title: "Position", show: (row) => String(row.index), value: (row) => row.index },
        { title: "Changed", text: true, show: (row) => changed.has(row.index) ? "changed" : "", tone: () => "bad" },
        { title: "Type", text: true, show: (row) => row.kind },
        { title: "Inputs", text: true, show: (row) => types(row.inputs) },
        { title: "Outputs", text: true, show: (row) => types(row.outputs) },
        { title: "Kernel", text: true, long: true, show: (row) => row.tactic ?? "" },
      ], rows);
    },

    log(host, { log }) {
      if (!log.records?.length) { host.remove(); return; }
      const tones = { error: "bad", internal_error: "bad", warning: "doubt" };
      const start = log.records.find((record) => record.time_s)?.time_s;
      table(host, `${log.records.length} messages${log.left_out ? `; ${log.left_out} more are left out` : ""}`, [
        { title: "Message", text: true, show: (row) => row.message },
        { title: "Severity", text: true, show: (row) => row.severity, tone: (row) => tones[row.severity] },
        { title: "Phase", text: true, show: (row) => row.phase ?? "" },
        { title: "Seconds", show: (row) => row.time_s ? (row.time_s - start).toFixed(3) : "", value: (row) => row.time_s },
      ], log.records);
    },
  };

  // The layers of one engine in several runs, found again by their ONNX nodes.
  function compareTable(host) {
    const ids = host.dataset.compare.split(" "), titles = JSON.parse(host.dataset.titles), rows = new Map();
    ids.forEach((id, run) => DATA[id].timing.layers.forEach((layer) => {
      if (layer.us == null) return;
      if (!rows.has(layer.key)) rows.set(layer.key, { key: layer.key, module: layer.module, times: [] });
      rows.get(layer.key).times[run] = layer.us;
    }));
    const all = [...rows.values()], last = ids.length - 1;
    const gain = (row) => row.times[0] != null && row.times[last] != null ? row.times[last] - row.times[0] : null;
    const adds = { title: "Last against first", show: (row) => gain(row) == null ? "" : `${us(gain(row), true)} (${percent(row.times[last] / row.times[0] - 1)})`, value: gain };
    table(host, `${all.length} layers; select a heading to sort`, [
      { title: "Layer (ONNX nodes)", text: true, show: (row) => row.key },
      ...ids.map((_, run) => ({ title: titles[run], show: (row) => us(row.times[run]), value: (row) => row.times[run] })), adds,
      { title: "Module", text: true, long: true, show: (row) => row.module },
    ], all, { sort: adds });
  }

  function numbersTable({ columns, rows }) {
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The numbers of the chart" }, element("table", {},
      element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell, index) => element(index ? "td" : "th", { scope: index ? null : "row" }, String(cell ?? ""))))))));
  }

  function choices(figure, made, data) {
    figure.querySelector(".tools")?.remove();
    if (!made.choices || made.choices.options.length < 2) return;
    const select = element("select", { onchange: (event) => { figure.dataset.choice = event.target.value; draw(figure, data); figure.querySelector("select").focus(); } },
      ...made.choices.options.map(([value, text]) => element("option", { value, selected: value === made.choices.chosen ? "" : null }, text)));
    figure.querySelector("figcaption").after(element("div", { class: "tools" }, element("label", {}, made.choices.label, select)));
  }

  function draw(figure, data) {
    const made = trtgray.plots[figure.dataset.chart](data, { width: figure.clientWidth || 800, choice: figure.dataset.choice });
    figure.hidden = !made;
    if (!made) return;
    let host = figure.querySelector(".plot");
    if (!host) { host = element("div", { class: "plot", role: "img" }); figure.append(host); }
    host.setAttribute("aria-label", made.label);
    if (made.height) host.style.height = `${made.height}px`;
    choices(figure, made, data);
    echarts.getInstanceByDom(host)?.dispose();
    const chart = echarts.init(host, null, { renderer: "svg" });
    const font = { color: color("text"), fontFamily: "system-ui, sans-serif" };
    const series = made.option.series.map((each) => ({ animation: false, ...each }));  // labels fade in otherwise, on paper too
    chart.setOption({ animation: false, textStyle: font, color: [1, 2, 3, 4, 5, 6].map((number) => color(`s${number}`)), ...made.option, series });
    figure.querySelector("details")?.remove();
    if (made.numbers) {
      const details = element("details", { ontoggle: () => { if (details.children.length === 1) details.append(numbersTable(made.numbers)); } }, element("summary", {}, "The numbers of this chart"));
      figure.append(details);
    }
    chart.getZr().flush();  // printing does not wait for the next frame
    figure.dataset.drawn = "yes";
    drawn.set(figure, data);
  }

  // A chart is drawn when it comes into view: a report of many engines opens at once.
  const dataOf = (figure) => DATA[figure.closest("section.engine").id];
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting && !target.dataset.drawn) draw(target, dataOf(target));
  }, { rootMargin: "400px" });

  for (const section of document.querySelectorAll("section.engine")) {
    const data = DATA[section.id];
    for (const host of section.querySelectorAll("[data-table]")) TABLES[host.dataset.table](host, data);
    for (const figure of section.querySelectorAll("[data-chart]")) {
      figure.hidden = !trtgray.has[figure.dataset.chart](data);
      if (!figure.hidden) watcher.observe(figure);
    }
  }
  document.querySelectorAll("[data-compare]").forEach(compareTable);

  const redraw = () => drawn.forEach((data, figure) => draw(figure, data));
  const root = document.documentElement, button = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; show(); redraw(); });
  system.addEventListener("change", () => { show(); redraw(); });
  let width = innerWidth, timer;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; clearTimeout(timer); timer = setTimeout(redraw, 100); } });

  // On paper everything is there, in light colours, as wide as a page.
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    document.body.style.width = "700px";
    document.querySelectorAll("[data-chart]").forEach((figure) => { if (!figure.hidden) draw(figure, dataOf(figure)); });
  });
  addEventListener("afterprint", () => {
    document.body.style.width = "";
    if (theme === undefined) delete root.dataset.theme; else root.dataset.theme = theme;
    redraw();
  });
  show();
})();
