"use strict";
// Tables that can be sorted and searched, and the charts of a report. All data is in the element #data.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const ROWS_AT_ONCE = 200, BARS = 30;
  const OUTCOME_ORDER = ["slower", "new", "gone", "inconclusive", "faster", "pass"];
  const charts = [];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const us = (value) => value == null ? "" : value >= 1e3 ? `${(value / 1e3).toPrecision(3)} ms` : `${Number(value.toPrecision(3))} us`;
  const percent = (value) => value == null ? "" : `${value >= 0 ? "+" : ""}${(value * 100).toFixed(1)} %`;
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const added = (row) => (row.us ?? 0) - (row.before_us ?? (row.outcome === "new" ? 0 : row.us ?? 0));
  const short = (text, length = 48) => text.length <= length ? text : `…${text.slice(1 - length)}`;
  // Tooltips of ECharts are HTML, and a node's name may be anything.
  const escape = (text) => String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
  const tone = (outcome) => color({ slower: "bad", new: "doubt", gone: "doubt", inconclusive: "doubt", faster: "good" }[outcome] ?? "before");

  function table(host, caption, columns, rows, { outcomes = false, sort = null, descending = true } = {}) {
    const state = { sort, descending, query: "", outcome: "", limit: ROWS_AT_ONCE };
    const body = element("tbody"), status = element("p", { role: "status", class: "muted" });
    const more = element("button", { type: "button", onclick: () => { state.limit = Infinity; draw(); } }, "Show all rows");
    const heads = columns.map((column) => {
      const head = element("th", { scope: "col", class: column.text ? "text" : null });
      head.append(element("button", { type: "button", onclick: () => {
        state.descending = state.sort === column ? !state.descending : !column.text;
        state.sort = column;
        draw();
      } }, column.title));
      return head;
    });
    const haystack = rows.map((row) => columns.filter((column) => column.text).map((column) => column.show(row)).join(" ").toLowerCase());
    function draw() {
      columns.forEach((column, index) => {
        if (state.sort === column) heads[index].setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        else heads[index].removeAttribute("aria-sort");
      });
      let found = rows.map((row, index) => [row, index]).filter(([row, index]) =>
        (!state.query || haystack[index].includes(state.query)) && (!state.outcome || row.outcome === state.outcome));
      if (state.sort) {
        const value = state.sort.value ?? state.sort.show, sign = state.descending ? -1 : 1;
        found.sort(([a], [b]) => {
          const left = value(a), right = value(b);
          if (left == null || right == null) return (left == null) - (right == null);
          return sign * (typeof left === "string" ? left.localeCompare(right) : left - right);
        });
      }
      body.replaceChildren(...found.slice(0, state.limit).map(([row]) => element("tr", {}, ...columns.map((column, index) => {
        const cell = element(index ? "td" : "th", { scope: index ? null : "row", class: column.text && index ? "text" : null }, column.show(row) ?? "");
        if (column.tone) cell.style.color = column.tone(row) || "";
        return cell;
      }))));
      status.textContent = `${Math.min(found.length, state.limit)} of ${rows.length} rows shown`;
      more.hidden = found.length <= state.limit;
    }
    const search = element("input", { type: "search", oninput: (event) => { state.query = event.target.value.toLowerCase(); draw(); } });
    const tools = element("div", { class: "tools" }, element("label", {}, "Search", search));
    if (outcomes) {
      const seen = OUTCOME_ORDER.filter((outcome) => rows.some((row) => row.outcome === outcome));
      const select = element("select", { onchange: (event) => { state.outcome = event.target.value; draw(); } },
        element("option", { value: "" }, "all"), ...seen.map((outcome) => element("option", { value: outcome }, outcome)));
      tools.append(element("label", {}, "Verdict", select));
    }
    host.replaceChildren(tools,
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
        element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...heads)), body)),
      status, more);
    draw();
  }

  function layersTable(host, timing) {
    const judged = timing.layers.some((row) => row.outcome);
    const columns = [
      { title: "Layer (ONNX nodes)", text: true, show: (row) => row.key },
      judged && { title: "Verdict", text: true, show: (row) => row.outcome, tone: (row) => row.outcome === "pass" ? "" : tone(row.outcome) },
      judged && { title: "Before", show: (row) => us(row.before_us), value: (row) => row.before_us },
      { title: "Now", show: (row) => us(row.us), value: (row) => row.us },
      judged && { title: "Adds", show: (row) => row.before_us != null || row.outcome === "new" ? us(added(row)) : "", value: added },
      judged && { title: "Change", show: (row) => row.before_us && row.us ? percent(row.change) : "", value: (row) => row.change },
      judged && { title: "95 % interval", show: (row) => row.before_us && row.us ? `${percent(row.low)} to ${percent(row.high)}` : "", value: (row) => row.low },
      { title: "Share", show: (row) => percent(row.share).replace("+", ""), value: (row) => row.share },
      { title: "Module", text: true, show: (row) => row.module },
      { title: "Type", text: true, show: (row) => row.kind },
      { title: "Precision", text: true, show: (row) => row.precision },
    ].filter(Boolean);
    const sort = columns.find((column) => column.title === (judged ? "Adds" : "Now"));
    table(host, `${timing.layers.length} layers; select a heading to sort`, columns, timing.layers, { outcomes: judged, sort });
  }

  function structureTable(host, structure) {
    const changed = new Set(structure.changed);
    const rows = structure.layers.map((layer, index) => ({ ...layer, index, nodes: (layer.onnx ?? []).join(" + ") || layer.name }));
    rows.forEach((row) => { row.is_changed = (row.onnx ?? []).some((node) => changed.has(node)) || changed.has(row.name); });
    const types = (tensors) => [...new Set((tensors ?? []).map((tensor) => tensor[1]))].join(", ");
    table(host, `${rows.length} layers in order of execution`, [
      { title: "Layer (ONNX nodes)", text: true, show: (row) => row.nodes },
      { title: "Position", show: (row) => String(row.index), value: (row) => row.index },
      { title: "Changed", text: true, show: (row) => row.is_changed ? "changed" : "", tone: () => color("bad") },
      { title: "Type", text: true, show: (row) => row.kind },
      { title: "Inputs", text: true, show: (row) => types(row.inputs) },
      { title: "Outputs", text: true, show: (row) => types(row.outputs) },
      { title: "Kernel", text: true, show: (row) => row.tactic ?? "" },
    ], rows);
  }

  function logTable(host, log) {
    if (!log.records?.length) { host.remove(); return; }
    table(host, `${log.records.length} messages`, [
      { title: "Message", text: true, show: (row) => row.message },
      { title: "Severity", text: true, show: (row) => row.severity },
      { title: "Phase", text: true, show: (row) => row.phase ?? "" },
    ], log.records);
  }

  const axis = (name) => ({ name, nameTextStyle: { color: color("muted") }, axisLabel: { color: color("muted") },
    axisLine: { lineStyle: { color: color("line") } }, splitLine: { lineStyle: { color: color("line") } } });
  const tooltip = (formatter) => ({ confine: true, backgroundColor: color("panel"), borderColor: color("line"),
    textStyle: { color: color("text") }, formatter: (item) => formatter(item).map(escape).join("<br>") });

  const PLOTS = {
    bars({ timing }) {
      const judged = timing.layers.filter((row) => row.us != null || row.before_us != null);
      const rows = [...judged].sort((a, b) => Math.abs(added(b)) - Math.abs(added(a)) || (b.us ?? 0) - (a.us ?? 0)).slice(0, BARS).reverse();
      if (!rows.length) return null;
      const bar = (name, value, tint) => ({ type: "bar", name, data: rows.map(value), itemStyle: { color: tint }, animation: false });
      const interval = { type: "custom", name: "95 % interval", animation: false, data: rows.map((row, index) =>
        row.before_us && row.us ? [row.us * (1 + row.low) / (1 + row.change), row.us * (1 + row.high) / (1 + row.change), index] : [null, null, index]),
        encode: { x: [0, 1], y: 2 },
        renderItem: (_, api) => {
          const [low, y] = api.coord([api.value(0), api.value(2)]), [high] = api.coord([api.value(1), api.value(2)]);
          if (Number.isNaN(low)) return null;
          const at = y + api.size([0, 1])[1] * 0.2;
          return { type: "line", shape: { x1: low, x2: high, y1: at, y2: at }, style: { stroke: color("text"), lineWidth: 2 } };
        } };
      const series = [bar("now", (row) => ({ value: row.us, itemStyle: { color: row.outcome && row.outcome !== "pass" ? tone(row.outcome) : color("now") } }), color("now"))];
      if (rows.some((row) => row.before_us != null)) series.unshift(bar("before", (row) => row.before_us, color("before")), interval);
      return {
        height: Math.max(180, rows.length * 26 + 80),
        option: {
          grid: { left: 8, right: 24, top: 30, bottom: 30, containLabel: true }, legend: { top: 0, textStyle: { color: color("text") }, data: series.map((each) => each.name) },
          xAxis: { type: "value", ...axis("us") },
          yAxis: { type: "category", data: rows.map((row) => short(row.key)), ...axis("") },
          tooltip: { trigger: "item", ...tooltip(({ dataIndex }) => { const row = rows[dataIndex]; return [row.key, `${us(row.before_us)} → ${us(row.us)}`, row.before_us && row.us ? `${percent(row.change)} (${percent(row.low)} to ${percent(row.high)})` : row.outcome ?? ""]; }) },
          series,
        },
        label: `The layer that adds most: ${rows.at(-1).key}, ${us(rows.at(-1).before_us)} to ${us(rows.at(-1).us)}`,
      };
    },

    modules({ timing }) {
      const root = { children: new Map(), name: "engine" };
      for (const row of timing.layers) {
        if (!(row.us > 0)) continue;
        let place = root;
        for (const part of (row.module || "(no module)").split(/[/.]/).filter(Boolean)) {
          if (!place.children.has(part)) place.children.set(part, { children: new Map(), name: part });
          place = place.children.get(part);
        }
        place.children.set(`layer ${place.children.size} ${row.key}`, { row, name: short(row.key, 30), children: new Map() });
      }
      const node = (place) => {
        const children = [...place.children.values()].map(node);
        const now = place.row ? place.row.us : children.reduce((sum, child) => sum + child.value, 0);
        const before = place.row ? place.row.before_us ?? (place.row.outcome === "new" ? 0 : place.row.us) : children.reduce((sum, child) => sum + child.before, 0);
        const change = before > 0 ? now / before - 1 : 1, changed = place.row ? !["pass", undefined].includes(place.row.outcome) : false;
        return { name: place.name, value: now, before, change, children: children.length ? children : undefined,
          itemStyle: { color: place.row ? changed ? tone(place.row.outcome) : color("before") : undefined, borderColor: color("ground") } };
      };
      return {
        option: {
          color: [color("before")],
          tooltip: tooltip(({ data }) => data?.name ? [data.name, `${us(data.before)} → ${us(data.value)} (${percent(data.change)})`] : []),
          series: [{ type: "treemap", animation: false, roam: false, nodeClick: "zoomToNode", data: node(root).children ?? [], leafDepth: 3,
            label: { color: "#ffffff", textBorderColor: "#000000", textBorderWidth: 2 },
            upperLabel: { show: true, height: 20, color: color("text") }, breadcrumb: { itemStyle: { color: color("panel"), textStyle: { color: color("text") } } },
            levels: [{ itemStyle: { gapWidth: 2, borderColor: color("line") } }, { itemStyle: { gapWidth: 1, borderWidth: 2, borderColor: color("line") } }] }],
        },
        label: "Time by module; the table of layers has the same numbers",
      };
    },

    trend({ timing }) {
      const past = timing.history.map((run) => ({ us: run.us, low: run.us * Math.exp(-1.96 * run.error), high: run.us * Math.exp(1.96 * run.error), context: run.context }));
      const runs = [...past, { us: timing.engine.us, context: timing.context, now: true }];
      const names = runs.map((run, index) => run.now ? "this run" : (run.context.time_utc ?? `run ${index + 1}`).slice(0, 16).replace("T", " "));
      return {
        option: {
          grid: { left: 8, right: 24, top: 30, bottom: 30, containLabel: true },
          xAxis: { type: "category", data: names, ...axis("") }, yAxis: { type: "value", scale: true, ...axis("us") },
          tooltip: { trigger: "item", ...tooltip(({ dataIndex }) => { const run = runs[dataIndex]; return [names[dataIndex], us(run.us), ...["commit", "driver", "job"].filter((key) => run.context?.[key]).map((key) => `${key} ${run.context[key]}`)]; }) },
          series: [{ type: "line", animation: false, data: runs.map((run) => ({ value: run.us, symbolSize: run.now ? 14 : 8, itemStyle: { color: run.now ? tone(timing.engine.outcome) : color("now") } })), lineStyle: { color: color("before") } }],
        },
        label: `The engine took ${runs.map((run) => us(run.us)).join(", ")}; the last is this run`,
      };
    },

    roofline({ timing }) {
      const rows = timing.layers.filter((row) => row.flops > 0 && row.bytes > 0 && row.us > 0);
      if (!rows.length) return null;
      const points = rows.map((row) => [row.flops / row.bytes, row.flops / row.us / 1e6]);
      const series = [{ type: "scatter", name: "layers", animation: false, data: points, symbolSize: 8, itemStyle: { color: color("now") } }];
      const peak = timing.roofline;
      if (peak?.flops_per_s && peak?.bytes_per_s) {
        const ridge = peak.flops_per_s / peak.bytes_per_s, xs = points.map(([x]) => x), low = Math.min(...xs, ridge) / 2, high = Math.max(...xs, ridge) * 2;
        series.push({ type: "line", name: "limit of the device", animation: false, symbol: "none", lineStyle: { color: color("muted") },
          data: [low, ridge, high].map((x) => [x, Math.min(peak.flops_per_s, x * peak.bytes_per_s) / 1e12]) });
      }
      return {
        option: {
          grid: { left: 8, right: 24, top: 30, bottom: 40, containLabel: true }, legend: { top: 0, textStyle: { color: color("text") } },
          xAxis: { type: "log", ...axis("FLOP/byte"), nameLocation: "middle", nameGap: 28 }, yAxis: { type: "log", ...axis("TFLOP/s") },
          tooltip: { trigger: "item", ...tooltip(({ dataIndex, seriesIndex }) => seriesIndex ? ["limit of the device"] : [rows[dataIndex].key, us(rows[dataIndex].us), `${points[dataIndex][0].toPrecision(3)} FLOP/byte, ${points[dataIndex][1].toPrecision(3)} TFLOP/s`]) },
          series,
        },
        label: `${rows.length} layers between memory and compute`,
      };
    },

    graph({ structure }) {
      const layers = structure.layers, changed = new Set(structure.changed), maker = new Map();
      layers.forEach((layer, index) => (layer.outputs ?? []).forEach((tensor) => maker.set(tensor[0], index)));
      const depth = new Array(layers.length).fill(0), level = new Map();
      const links = [];
      layers.forEach((layer, index) => (layer.inputs ?? []).forEach((tensor) => {
        const from = maker.get(tensor[0]);
        if (from !== undefined && from !== index) {
          links.push({ source: String(from), target: String(index) });
          if (from < index) depth[index] = Math.max(depth[index], depth[from] + 1);
        }
      }));
      if (!links.length) layers.forEach((_, index) => { depth[index] = index; });
      const perLine = 24;  // a chain is folded like text
      const data = layers.map((layer, index) => {
        const beside = level.get(depth[index]) ?? 0;
        level.set(depth[index], beside + 1);
        const nodes = layer.onnx ?? [], isChanged = nodes.some((node) => changed.has(node)) || changed.has(layer.name);
        return { id: String(index), name: nodes.join(" + ") || layer.name, kind: layer.kind, isChanged,
          x: (depth[index] % perLine) * 60, y: Math.floor(depth[index] / perLine) * 160 + beside * 30,
          symbolSize: isChanged ? 18 : 10, itemStyle: { color: isChanged ? color("bad") : color("now") } };
      });
      const count = data.filter((node) => node.isChanged).length;
      return {
        canvas: true,
        option: {
          tooltip: tooltip(({ data: node }) => node.name !== undefined ? [node.name, node.kind, node.isChanged ? "changed" : ""].filter(Boolean) : [""]),
          series: [{ type: "graph", layout: "none", preserveAspect: true, animation: false, roam: true, data, links, edgeSymbol: ["none", "arrow"], edgeSymbolSize: 5,
            lineStyle: { color: color("before"), opacity: .7 }, label: { show: false }, left: 20, right: 20, top: 20, bottom: 20 }],
        },
        label: `${layers.length} layers, ${count} of them changed`,
      };
    },

    errors({ outputs }) {
      const rows = outputs.outputs.filter((row) => row.histogram?.counts?.length);
      if (!rows.length) return null;
      const edges = rows[0].histogram.edges;
      return {
        option: {
          grid: { left: 8, right: 24, top: 30, bottom: 40, containLabel: true }, legend: { top: 0, textStyle: { color: color("text") } },
          xAxis: { type: "category", data: rows[0].histogram.counts.map((_, index) => edges[index].toExponential(0)), ...axis("absolute error"), nameLocation: "middle", nameGap: 28 },
          yAxis: { type: "value", ...axis("%") },
          tooltip: { trigger: "item", ...tooltip(({ seriesName, name, value }) => [seriesName, `from ${name}`, `${value.toPrecision(3)} % of the elements`]) },
          series: rows.map((row) => { const total = row.histogram.counts.reduce((a, b) => a + b, 0) || 1; return { type: "bar", name: row.name, animation: false, data: row.histogram.counts.map((count) => 100 * count / total) }; }),
        },
        label: "Distribution of the errors",
      };
    },

    rows({ outputs }) {
      const rows = outputs.outputs.filter((row) => row.rows?.length > 1);
      if (!rows.length) return null;
      return {
        option: {
          grid: { left: 8, right: 24, top: 30, bottom: 40, containLabel: true }, legend: { top: 0, textStyle: { color: color("text") } },
          xAxis: { type: "category", data: rows[0].rows.map((row) => String(row.index)), ...axis("row"), nameLocation: "middle", nameGap: 28 },
          yAxis: { type: "value", ...axis("relative L2") },
          tooltip: { trigger: "item", ...tooltip(({ seriesName, name, value }) => [seriesName, `row ${name}`, Number(value ?? 0).toExponential(2)]) },
          series: rows.map((row) => ({ type: "bar", name: row.name, animation: false, data: row.rows.map((each) => each.relative_l2) })),
        },
        label: "Relative error by row of the batch",
      };
    },

    log({ log }) {
      const records = (log.records ?? []).filter((record) => record.time_s);
      if (!records.length) return null;
      const levels = ["verbose", "info", "warning", "error", "internal_error"], start = records[0].time_s;
      return {
        height: 260,
        option: {
          grid: { left: 8, right: 24, top: 20, bottom: 40, containLabel: true },
          xAxis: { type: "value", ...axis("s"), nameLocation: "middle", nameGap: 28 }, yAxis: { type: "category", data: levels, ...axis("") },
          tooltip: { trigger: "item", ...tooltip(({ dataIndex }) => [records[dataIndex].severity, short(records[dataIndex].message, 120)]) },
          series: [{ type: "scatter", animation: false, data: records.map((record) => [record.time_s - start, record.severity]),
            itemStyle: { color: ({ dataIndex }) => ({ error: color("bad"), internal_error: color("bad"), warning: color("doubt") })[records[dataIndex].severity] ?? color("now") } }],
        },
        label: `${records.length} messages over time`,
      };
    },
  };

  function draw(figure, data) {
    const made = PLOTS[figure.dataset.chart](data);
    figure.hidden = !made;
    if (!made) return;
    let host = figure.querySelector(".plot");
    if (!host) { host = element("div", { class: "plot" }); figure.prepend(host); }
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", made.label);
    if (made.height) host.style.height = `${made.height}px`;
    echarts.getInstanceByDom(host)?.dispose();
    const chart = echarts.init(host, null, { renderer: made.canvas ? "canvas" : "svg" });
    chart.setOption({ textStyle: { color: color("text"), fontFamily: "system-ui, sans-serif" }, ...made.option });
    figure.dataset.drawn = "yes";
    return chart;
  }

  // A chart is drawn when it comes into view: a report of many engines opens at once.
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || target.dataset.drawn) continue;
      const data = DATA[target.closest("section.engine").id];
      charts.push([target, data]);
      draw(target, data);
    }
  }, { rootMargin: "400px" });

  for (const section of document.querySelectorAll("section.engine")) {
    const data = DATA[section.id];
    const tables = { layers: () => layersTable, structure: () => structureTable, log: () => logTable };
    for (const host of section.querySelectorAll("[data-table]")) {
      const kind = host.dataset.table;
      tables[kind]()(host, data[kind === "layers" ? "timing" : kind]);
    }
    for (const figure of section.querySelectorAll("[data-chart]")) {
      if (figure.hidden) figure.hidden = !PLOTS[figure.dataset.chart](data);
      if (!figure.hidden) watcher.observe(figure);
    }
  }

  const redraw = () => charts.forEach(([figure, data]) => draw(figure, data));
  const button = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; show(); redraw(); });
  system.addEventListener("change", () => { show(); redraw(); });
  addEventListener("resize", () => charts.forEach(([figure]) => echarts.getInstanceByDom(figure.querySelector(".plot"))?.resize()));
  addEventListener("beforeprint", () => document.querySelectorAll("[data-chart]").forEach((figure) => {
    if (!figure.hidden && !figure.dataset.drawn) { const data = DATA[figure.closest("section.engine").id]; charts.push([figure, data]); draw(figure, data); }
  }));
  show();
})();
