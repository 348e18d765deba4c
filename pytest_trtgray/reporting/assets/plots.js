"use strict";
// What the charts of a report show: each function makes the options of one chart, a label for those who do not see it,
// and where no table of the report has its numbers, the numbers.
const trtgray = (() => {
  const BARS = 30, CELLS = 400, DRAWN = 250, PHASES = 12, MODULES = 1000;

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const us = (value, signed = false) => {
    if (value == null) return "";
    const size = Math.abs(value), text = size >= 1e6 ? `${(size / 1e6).toPrecision(3)} s` : size >= 1e3 ? `${(size / 1e3).toPrecision(3)} ms` : `${Number(size.toPrecision(3))} us`;
    return (value < 0 ? "-" : signed && value > 0 ? "+" : "") + text;
  };
  const percent = (value) => value == null ? "" : `${value >= 0 ? "+" : "-"}${Math.abs(value * 100).toFixed(1)} %`;
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
  const short = (text, length) => text.length <= length ? text : `…${text.slice(1 - length)}`;
  // Tooltips of ECharts are HTML, and a node's name may be anything.
  const escape = (text) => String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
  const TONES = { slower: "bad", new: "doubt", gone: "doubt", inconclusive: "doubt", faster: "good" };
  const tone = (outcome) => color(TONES[outcome] ?? "now");
  const area = (outcome) => color(outcome in TONES ? `area-${TONES[outcome]}` : "area");
  // Of a fused layer the node that gives it its type, and how many others there are.
  const label = (key, kind, length) => {
    const nodes = key.split(" + "), name = (kind || "").toLowerCase();
    const main = nodes.find((node) => node.split("/").at(-1).toLowerCase().startsWith(name)) ?? nodes[0];
    const more = nodes.length > 1 ? ` +${nodes.length - 1}` : "";
    return short(main, length - more.length) + more;
  };
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  const axis = (name, more = {}) => ({ name, nameTextStyle: { color: color("muted"), ...more.title }, axisLabel: { color: color("muted"), hideOverlap: true, ...more.label },
    axisLine: { lineStyle: { color: color("muted") } }, axisTick: { lineStyle: { color: color("muted") } }, splitLine: { lineStyle: { color: color("line") } } });
  const below = { nameLocation: "middle", nameGap: 28 };
  const legend = (more = {}) => ({ top: 0, left: 0, icon: "roundRect", textStyle: { color: color("text") }, inactiveColor: color("muted"), ...more });
  const tooltip = (formatter) => ({ trigger: "item", confine: true, backgroundColor: color("panel"), borderColor: color("line"),
    extraCssText: "white-space: normal; overflow-wrap: anywhere; max-width: 30rem", textStyle: { color: color("text") }, formatter: (item) => formatter(item).filter(Boolean).map(escape).join("<br>") });
  const grid = (more = {}) => ({ left: 12, right: 24, top: 36, bottom: 12, containLabel: true, ...more });
  // A line from one value to another along an axis, with ends: a confidence interval.
  const whiskers = (name, data, along, { shift = 0 } = {}) => ({ type: "custom", name, silent: true, data, z: 4, itemStyle: { color: color("text") },
    encode: along === "x" ? { x: [0, 1], y: 2 } : { x: 2, y: [0, 1] },
    renderItem: (_, api) => {
      const place = (value) => api.coord(along === "x" ? [value, api.value(2)] : [api.value(2), value]);
      const from = place(api.value(0)), to = place(api.value(1));
      if ([...from, ...to].some(Number.isNaN)) return null;
      const step = along === "x" ? api.size([0, 1])[1] * shift : 0, cap = 4, stroke = { stroke: color("text"), lineWidth: 1.5 };
      const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1: y1 + step, x2, y2: y2 + step }, style: stroke });
      const end = ([x, y]) => along === "x" ? line(x, y - cap, x, y + cap) : line(x - cap, y, x + cap, y);
      return { type: "group", children: [line(...from, ...to), end(from), end(to)] };
    } });

  function bars({ timing }, { width }) {
    const judged = timing.layers.some((row) => row.before_us != null);
    const known = timing.layers.filter((row) => row.us != null || row.before_us != null);
    const size = (row) => judged ? Math.abs(added(row)) : row.us ?? 0;
    const all = [...known].sort((a, b) => (TONES[b.outcome] === "bad") - (TONES[a.outcome] === "bad") || size(b) - size(a) || (b.us ?? 0) - (a.us ?? 0));
    const rows = all.slice(0, width < 500 ? 12 : judged ? 15 : BARS).reverse();
    const outcomes = [...new Set(rows.map((row) => row.outcome ?? "now"))];
    const series = outcomes.map((outcome) => ({ type: "bar", stack: "now", name: outcome === "now" ? "now" : `now: ${outcome}`, itemStyle: { color: tone(outcome) },
      data: rows.map((row) => (row.outcome ?? "now") === outcome ? row.us : null) }));
    if (judged) {
      series.unshift({ type: "bar", name: "before", itemStyle: { color: color("before") }, data: rows.map((row) => row.before_us) });
      series.push(whiskers("95 % interval", rows.map((row, index) => row.before_us && row.us
        ? [row.us * (1 + row.low) / (1 + row.change), row.us * (1 + row.high) / (1 + row.change), index] : [NaN, NaN, index]), "x", { shift: 0.2 }));
    }
    const top = all[0], letters = Math.max(14, Math.min(48, Math.floor(width / 18)));
    return {
      height: rows.length * (judged ? 34 : 24) + 90,
      option: {
        grid: grid({ top: width < 500 ? 56 : 36, bottom: 24 }), legend: legend({ data: series.filter((each) => each.type === "bar").map((each) => each.name) }),
        xAxis: { type: "value", ...axis("", { label: { formatter: (value) => us(value) } }) },
        yAxis: { type: "category", data: rows.map((row) => label(row.key, row.kind, letters)), ...axis("", { label: { color: color("text") } }) },
        tooltip: tooltip(({ dataIndex }) => {
          const row = rows[dataIndex], both = row.before_us && row.us;
          return [row.key, judged ? `${us(row.before_us)} → ${us(row.us)}` : us(row.us), both ? `${percent(row.change)} (${percent(row.low)} to ${percent(row.high)})` : "", row.outcome];
        }),
        series,
      },
      label: judged ? `The layer that adds most: ${top.key}, ${us(top.before_us)} to ${us(top.us)}` : `The layer that takes longest: ${top.key}, ${us(top.us)}`,
    };
  }

  function modules({ timing }, { width, choice }) {
    const parts = (row) => (row.module || "(no module)").split("/").filter(Boolean);
    const root = { children: new Map(), name: "engine" };
    for (const row of timing.layers) {
      if (!(row.us > 0)) continue;
      let place = root;
      for (const part of parts(row)) {
        if (!place.children.has(part)) place.children.set(part, { children: new Map(), name: part });
        place = place.children.get(part);
      }
      place.children.set(`layer ${place.children.size} ${row.key}`, { row, name: label(row.key, row.kind, 30).replace(/^.*[/](?=[^/]*[/])/, ""), children: new Map() });
    }
    const paths = [];
    const walk = (place, path) => place.children.forEach((child, name) => { if (child.children.size) { paths.push([...path, name]); walk(child, [...path, name]); } });
    walk(root, []);
    const chosen = paths.find((path) => path.join("/") === choice) ?? [];
    let start = root;
    for (const part of chosen) start = start.children.get(part);
    let deepest = 4;
    const whole = sum(timing.layers.map((row) => row.us > 0 ? row.us : 0));
    const node = (place, depth) => {
      // a module in a module, and nothing else in it: one cell
      const only = place.children.size === 1 ? [...place.children.values()][0] : null;
      if (only?.children.size && depth) return node({ ...only, name: `${place.name}/${only.name}` }, depth);
      const all = [...place.children.values()].map((child) => node(child, depth + 1));
      const now = place.row ? place.row.us : sum(all.map((child) => child.value));
      const before = place.row ? place.row.before_us ?? (place.row.outcome === "new" ? 0 : place.row.us) : sum(all.map((child) => child.before));
      const outcome = place.row ? place.row.outcome : all.find((child) => child.outcome === "slower") ? "slower" : undefined;
      // too deep to be told apart: one cell for the whole module
      const children = depth < deepest ? all : [];
      return { name: place.name, value: now, before, outcome, full: place.row?.key ?? place.name, children: children.length ? children : undefined,
        label: { show: now > whole / 150 }, upperLabel: { show: now > whole / 80 },  // in a smaller cell there is no room for a word
        itemStyle: { color: area(outcome), borderColor: children.length ? color("panel") : color("ground") } };
    };
    // as deep as a reader can tell cells apart
    const cells = (place, levels) => levels && place.children.size ? sum([...place.children.values()].map((child) => cells(child, levels - 1))) : 1;
    while (deepest > 2 && cells(start, deepest) > CELLS) deepest -= 1;
    const judged = timing.layers.some((row) => row.before_us != null), data = node(start, 0);
    return {
      height: width < 500 ? 300 : 380,
      choices: { label: "Show", chosen: chosen.join("/"), options: [["", "all modules"], ...paths.slice(0, MODULES).map((path) => [path.join("/"), path.join("/")])] },
      option: {
        tooltip: tooltip(({ data: cell }) => cell?.full ? [cell.full, judged ? `${us(cell.before)} → ${us(cell.value)} (${cell.before > 0 ? percent(cell.value / cell.before - 1) : "new"})` : us(cell.value)] : []),
        series: [{ type: "treemap", roam: false, nodeClick: false, data: data.children ?? [data], left: 0, right: 0, top: 4, bottom: 4, breadcrumb: { show: false }, visibleMin: 40,
          label: { color: color("text"), fontSize: 11, overflow: "truncate" }, upperLabel: { show: true, height: 20, color: color("text"), fontSize: 12, overflow: "truncate" },
          levels: [{ itemStyle: { gapWidth: 3, borderColor: color("ground") }, upperLabel: { show: false } }, { itemStyle: { gapWidth: 2, borderWidth: 2 } }, { itemStyle: { gapWidth: 1, borderWidth: 1 } }] }],
      },
      label: `Time by module${chosen.length ? ` in ${chosen.join("/")}` : ""}; the table of modules has the numbers`,
    };
  }

  function trend({ timing }, { width }) {
    const past = timing.history.map((run) => ({ us: run.us, low: run.us * Math.exp(-1.96 * run.error), high: run.us * Math.exp(1.96 * run.error), context: run.context }));
    const { us: now, outcome } = timing.engine, error = timing.error ?? NaN;
    const runs = [...past, { us: now, low: now * Math.exp(-1.96 * error), high: now * Math.exp(1.96 * error), context: timing.context ?? {}, now: true }];
    const time = (run) => (run.context?.time_utc ?? "").slice(0, 16).replace("T", " ");
    const names = runs.map((run, index) => run.now ? "this run" : time(run) || `run ${index + 1}`);
    const said = ["commit", "driver", "job", "clock_mhz"], any = timing.layers.find((row) => row.outcome === "slower") ? "slower" : outcome;
    return {
      height: 240,
      option: {
        grid: grid({ top: 16, right: 36 }),
        xAxis: { type: "category", data: names.map((name, index) => runs[index].now ? name : width < 500 ? name.slice(5, 10) : name), ...axis("", { label: { hideOverlap: true } }) },
        yAxis: { type: "value", scale: true, min: ({ min, max }) => { const step = 10 ** Math.floor(Math.log10(max - min || max || 1)); return Math.max(0, Math.floor((min - (max - min) * 0.3) / step) * step); }, ...axis("", { label: { formatter: (value) => us(value) } }) },
        tooltip: tooltip(({ dataIndex }) => { const run = runs[dataIndex]; return [names[dataIndex], us(run.us), ...said.filter((key) => run.context?.[key]).map((key) => `${key} ${run.context[key]}`)]; }),
        series: [
          { type: "line", name: "time", lineStyle: { color: color("before") }, data: runs.map((run) => ({ value: run.us, symbol: run.now ? "diamond" : "circle", symbolSize: run.now ? 16 : 8, itemStyle: { color: run.now ? tone(any) : color("before") } })) },
          whiskers("95 % interval", runs.map((run, index) => [run.low ?? NaN, run.high ?? NaN, index]), "y"),
        ],
      },
      label: `The engine took ${runs.map((run) => us(run.us)).join(", ")}; the last is this run`,
      numbers: { columns: ["Run", "Time", "95 % interval", "Commit", "Job"], rows: runs.map((run, index) => [names[index], us(run.us), Number.isNaN(run.low) ? "" : `${us(run.low)} to ${us(run.high)}`, run.context?.commit ?? "", run.context?.job ?? ""]) },
    };
  }

  function roofline({ timing }, { width }) {
    const rows = timing.layers.filter((row) => row.flops > 0 && row.bytes > 0 && row.us > 0);
    const points = rows.map((row) => [row.flops / row.bytes, row.flops / row.us / 1e6]), xs = points.map(([x]) => x);
    const kinds = [...new Set(rows.map((row) => row.precision || "unknown precision"))].slice(0, 6);
    const series = kinds.map((kind) => ({ type: "scatter", name: kind, symbolSize: 9, data: points.map((point, index) => ({ value: point, index })).filter(({ index }) => (rows[index].precision || "unknown precision") === kind) }));
    const peak = timing.peak;
    if (peak) {
      const rates = Object.entries(peak.flops_per_s).filter(([name]) => name === "vector" || kinds.includes(name) || (name === "tf32" && kinds.includes("float32")));
      for (const [name, rate] of rates) {
        const ridge = rate / peak.bytes_per_s, low = Math.min(...xs, ridge) / 2, high = Math.max(...xs, ridge) * 2;
        series.push({ type: "line", name: `${name} roof`, symbol: "none", silent: true, lineStyle: { color: color("muted"), type: name === "vector" ? "dashed" : "solid" }, itemStyle: { color: color("muted") },
          data: [low, ridge, high].map((x) => [x, Math.min(rate, x * peak.bytes_per_s) / 1e12]) });
      }
    }
    const brief = (value) => value >= 1e4 || value < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
    return {
      height: 360,
      option: {
        grid: grid({ top: width < 500 ? 70 : 44, bottom: 44 }), legend: legend(),
        xAxis: { type: "log", ...axis("operations a byte", { label: { formatter: brief } }), ...below }, yAxis: { type: "log", ...axis("TFLOP/s", { label: { formatter: brief }, title: { align: "left" } }) },
        tooltip: tooltip(({ data }) => data.index === undefined ? [] : [rows[data.index].key, us(rows[data.index].us), `${brief(data.value[0])} FLOP/byte, ${brief(data.value[1])} TFLOP/s`, rows[data.index].bound ? `bound by ${rows[data.index].bound}` : ""]),
        series,
      },
      label: `${rows.length} layers by operations a byte and operations a second${peak ? `, below the roofs of ${peak.source}` : "; the peaks of this device are not known"}`,
      numbers: { columns: ["Layer", "FLOP/byte", "TFLOP/s", "Bound"], rows: rows.slice(0, CELLS).map((row, index) => [row.key, brief(points[index][0]), brief(points[index][1]), row.bound ?? ""]) },
    };
  }

  // Layers around what changed, or those of a module; never more than a reader can follow.
  function graph({ structure, timing }, { width, choice }) {
    const layers = structure.layers, changed = new Set(structure.changed), maker = new Map(), outcome = new Map();
    for (const row of timing?.layers ?? []) if (row.outcome && row.outcome !== "pass") for (const node of row.nodes) outcome.set(node, row.outcome);
    const state = layers.map((layer, index) => changed.has(index) ? "changed" : (layer.onnx ?? []).map((node) => outcome.get(node)).find((found) => found === "slower" || found === "faster") ?? "other");
    layers.forEach((layer, index) => (layer.outputs ?? []).forEach((tensor) => maker.set(tensor[0], index)));
    const readers = layers.map(() => []), makers = layers.map(() => []);
    layers.forEach((layer, index) => new Set((layer.inputs ?? []).map((tensor) => maker.get(tensor[0]))).forEach((from) => {
      if (from !== undefined && from < index) { readers[from].push(index); makers[index].push(from); }
    }));
    const flows = makers.some((each) => each.length);
    if (!flows) layers.forEach((_, index) => { if (index) { readers[index - 1].push(index); makers[index].push(index - 1); } });
    const moduleOf = (layer) => (layer.onnx?.[0] ?? "").split("/").filter(Boolean).slice(0, -1);
    const names = new Map();
    layers.forEach((layer) => { const path = moduleOf(layer); path.forEach((_, depth) => { const name = path.slice(0, depth + 1).join("/"); names.set(name, (names.get(name) ?? 0) + 1); }); });
    const marked = layers.map((_, index) => index).filter((index) => state[index] !== "other");
    const options = [...(marked.length ? [["", `what changed, and its neighbours (${marked.length})`]] : []),
      [marked.length ? "*" : "", layers.length > DRAWN ? `the first ${DRAWN} of ${layers.length} layers` : `all ${layers.length} layers`],
      ...[...names].slice(0, MODULES).map(([name, count]) => [`m:${name}`, `${name} (${count})`])];
    const chosen = options.some(([value]) => value === choice) ? choice : "";
    let wanted = layers.map((_, index) => index);
    if (chosen.startsWith("m:")) wanted = wanted.filter((index) => `${moduleOf(layers[index]).join("/")}/`.startsWith(`${chosen.slice(2)}/`));
    else if (chosen === "" && marked.length) {
      wanted = marked.slice(0, DRAWN / 5);
      for (let step = 0; step < 2; step++) wanted = [...new Set([...wanted, ...wanted.flatMap((index) => [...makers[index], ...readers[index]])])];
    }
    const shown = [...wanted].sort((a, b) => a - b).slice(0, DRAWN), place = new Map(shown.map((index, position) => [index, position]));
    const depth = new Map();
    for (const index of shown) depth.set(index, Math.max(0, ...makers[index].filter((from) => place.has(from)).map((from) => depth.get(from) + 1)));
    const perLine = Math.max(3, Math.floor((width - 40) / 110)), stacked = new Map(), tall = [];
    const data = shown.map((index) => {
      const layer = layers[index], column = depth.get(index), beside = stacked.get(column) ?? 0, line = Math.floor(column / perLine);
      stacked.set(column, beside + 1);
      tall[line] = Math.max(tall[line] ?? 0, beside + 1);
      const full = (layer.onnx ?? []).join(" + ") || layer.name;
      return { id: String(index), name: full, kind: layer.kind, state: state[index], column: line % 2 ? perLine - 1 - column % perLine : column % perLine, line, beside,
        symbol: state[index] === "other" ? "circle" : "diamond", symbolSize: state[index] === "other" ? 12 : 20, category: ["changed", "slower", "faster", "other"].indexOf(state[index]),
        label: { formatter: label(full, layer.kind, 60).replace(/^.*[/](?=[^/]*[/])/, "").slice(-20) } };
    });
    const tops = tall.map((_, line) => sum(tall.slice(0, line)) * 52);
    for (const node of data) { node.x = 60 + node.column * ((width - 120) / Math.max(perLine - 1, 1)); node.y = 26 + tops[node.line] + node.beside * 52; }
    const bottom = Math.max(...data.map((node) => node.y)) + 40;
    const links = shown.flatMap((index) => readers[index].filter((to) => place.has(to)).map((to) => ({ source: String(index), target: String(to) })));
    const tints = { changed: color("bad"), slower: color("doubt"), faster: color("good"), other: color("before") };
    const words = { changed: "changed", slower: "slower", faster: "faster", other: "as before" };
    const seen = new Set(data.map((node) => node.state));
    // two points that are not seen fix the scale, so that places are pixels
    const corner = (id, x, y) => ({ id, name: "", x, y, symbolSize: 0, label: { show: false }, tooltip: { show: false }, silent: true, category: 3 });
    return {
      height: bottom + 34,
      choices: { label: "Show", chosen, options },
      option: {
        legend: legend({ data: Object.keys(words).filter((name) => seen.has(name)).map((name) => words[name]) }),
        tooltip: tooltip(({ data: node }) => node.kind !== undefined ? [node.name, node.kind, words[node.state]] : []),
        series: [{ type: "graph", layout: "none", roam: false, links, data: [...data, corner("-1", 0, 0), corner("-2", width, bottom)], left: 0, right: 0, top: 30, bottom: 4,
          categories: Object.entries(words).map(([name, word]) => ({ name: word, itemStyle: { color: tints[name] } })), edgeSymbol: ["none", "arrow"], edgeSymbolSize: 6,
          lineStyle: { color: color("before"), opacity: 1, curveness: 0.08 }, label: { show: true, position: "bottom", distance: 3, color: color("text"), fontSize: 11 } }],
      },
      label: `${data.length} of ${layers.length} layers, ${marked.length} of which changed${marked.length ? `: ${marked.slice(0, 3).map((index) => (layers[index].onnx ?? [layers[index].name]).join(" + ")).join(", ")}` : ""}`,
    };
  }

  function errors({ outputs }, { width }) {
    const rows = outputs.outputs.filter((row) => row.histogram?.counts?.length), edges = rows[0].histogram.edges;
    const used = edges.map((_, index) => index).filter((index) => rows.some((row) => row.histogram.counts[index]));
    const [first, last] = [used[0] ?? 0, used.at(-1) ?? 0], bins = edges.slice(first, last + 1);
    const name = (edge) => edge === 0 ? "0" : edge.toExponential(0);
    const share = (row) => { const total = sum(row.histogram.counts) || 1; return row.histogram.counts.slice(first, last + 1).map((count) => 100 * count / total); };
    return {
      height: 280,
      option: {
        grid: grid({ bottom: 40, top: rows.length > 1 ? 40 : 28 }), legend: legend({ show: rows.length > 1, type: rows.length > 6 ? "scroll" : "plain" }),
        xAxis: { type: "category", data: bins.map((edge) => `from ${name(edge)}`), ...axis("absolute error", { label: { formatter: (text) => text.slice(5), interval: width < 500 ? "auto" : 0 } }), ...below }, yAxis: { type: "value", ...axis("% of elements", { title: { align: "left" } }) },
        tooltip: tooltip(({ seriesName, name: from, value }) => [seriesName, from, `${value.toPrecision(3)} % of the elements`]),
        series: rows.map((row) => ({ type: "bar", name: row.name, data: share(row) })),
      },
      label: `Absolute errors of ${rows.length === 1 ? rows[0].name : `${rows.length} outputs`} lie between ${name(bins[0])} and ${name(edges[last + 1] ?? Infinity)}`,
      numbers: { columns: ["Absolute error from", ...rows.map((row) => `${row.name}, %`)], rows: bins.map((edge, index) => [name(edge), ...rows.map((row) => share(row)[index].toPrecision(3))]) },
    };
  }

  function map({ outputs }, { width, choice }) {
    const rows = outputs.outputs.filter((row) => row.map), worst = [...rows].sort((a, b) => b.wrong - a.wrong || (b.max_abs ?? Infinity) - (a.max_abs ?? Infinity))[0];
    const row = rows.find((each) => each.name === choice) ?? worst, cells = row.map.cells;
    const sizes = cells.flat().filter((value) => value > 0), low = sizes.length ? Math.log10(Math.min(...sizes)) : 0, high = sizes.length ? Math.log10(Math.max(...sizes)) : 0;
    const broken = cells.some((line) => line.includes(null)), flat = !sizes.length || high - low < 1e-9;
    const down = row.map.row_starts, across = row.map.column_starts, text = (value) => value === null ? "not finite" : value === 0 ? "0" : value.toExponential(1);
    const data = cells.flatMap((line, y) => line.map((value, x) => value === null ? { value: [x, y, high], itemStyle: { color: color("text") } } : [x, y, value > 0 ? Math.log10(value) : low]));
    const until = (starts, index) => starts.length > 1 && starts[1] - starts[0] > 1 ? `${starts[index]}…` : String(starts[index]);
    return {
      height: Math.min(460, Math.max(170, down.length * 16 + 120)),
      choices: { label: "Output", chosen: row.name, options: rows.map((each) => [each.name, each.name]) },
      option: {
        grid: grid({ top: 30, bottom: 66, left: 20 }),
        xAxis: { type: "category", data: across.map((_, index) => until(across, index)), ...axis(row.map.columns), nameLocation: "middle", nameGap: 26 }, yAxis: { type: "category", inverse: true, data: down.map((_, index) => until(down, index)), ...axis(row.map.rows), nameLocation: "start" },
        visualMap: { type: "continuous", show: !flat, min: flat ? -1 : low, max: flat ? 0 : high, calculable: false, orient: "horizontal", left: "center", bottom: 0, itemHeight: Math.min(240, width / 2), itemWidth: 12, hoverLink: false,
          text: flat ? [] : [text(10 ** high), text(10 ** low)], textStyle: { color: color("text") }, inRange: { color: [color("area"), color("area-bad"), color("bad")] } },
        tooltip: tooltip(({ value }) => [`${row.map.rows} ${until(down, value[1])}, ${row.map.columns} ${until(across, value[0])}`, `largest error ${text(cells[value[1]][value[0]])}`]),
        series: [{ type: "heatmap", data, itemStyle: { borderColor: color("ground"), borderWidth: 0.5 }, emphasis: { disabled: true } }],
      },
      label: `Largest absolute error of ${row.name} in ${down.length} by ${across.length} cells, at most ${text(row.max_abs)}${broken ? "; some are not finite" : ""}`,
      numbers: { columns: ["", ...across.map((_, index) => until(across, index))], rows: cells.map((line, index) => [until(down, index), ...line.map(text)]) },
    };
  }

  function rows({ outputs }, { width }) {
    const found = outputs.outputs.filter((row) => row.rows?.length > 1);
    const places = found.map((row) => row.rows.slice(0, CELLS)), longest = places.reduce((a, b) => a.length >= b.length ? a : b);
    return {
      height: 240,
      option: {
        grid: grid({ bottom: 40, top: found.length > 1 ? 40 : 28 }), legend: legend({ show: found.length > 1 }),
        xAxis: { type: "category", data: longest.map((row) => String(row.index)), ...axis("row"), ...below }, yAxis: { type: "value", ...axis("relative L2", { title: { align: "left" }, label: { formatter: (value) => value ? value.toExponential(1) : "0" } }) },
        tooltip: tooltip(({ seriesName, name, value }) => [seriesName, `row ${name}`, Number(value ?? 0).toExponential(2)]),
        series: found.map((row, index) => ({ type: "bar", name: row.name, data: places[index].map((each) => each.relative_l2) })),
      },
      label: `Relative L2 error of each row of ${found.map((row) => row.name).join(", ")}`,
      numbers: { columns: ["Row", ...found.map((row) => row.name)], rows: longest.map((row, index) => [row.index, ...places.map((each) => each[index]?.relative_l2?.toExponential(2) ?? "")]) },
    };
  }

  function log({ log: said }, { width }) {
    const records = said.records.filter((record) => record.time_s), levels = ["verbose", "info", "warning", "error", "internal_error"].filter((level) => records.some((record) => record.severity === level));
    const spans = [...(said.phases ?? [])].sort((a, b) => b.seconds - a.seconds).slice(0, PHASES).sort((a, b) => b.start_s - a.start_s);
    const start = Math.min(...records.map((record) => record.time_s), ...spans.map((span) => span.start_s)), end = Math.max(...records.map((record) => record.time_s), ...spans.map((span) => span.start_s + span.seconds));
    const tall = spans.length * 22, letters = Math.max(14, Math.floor(width / 26)), left = Math.min(letters * 7 + 16, 250);
    const time = { type: "value", min: 0, max: end - start || 1, ...axis("") };
    const tints = { error: "bad", internal_error: "bad", warning: "doubt" };
    return {
      height: tall + levels.length * 30 + 100,
      option: {
        grid: [{ left, right: 24, top: 10, height: tall || 1 }, { left, right: 24, top: tall + 24, height: levels.length * 30 }],
        xAxis: [{ ...time, gridIndex: 0, axisLabel: { show: false } }, { ...time, gridIndex: 1, ...axis("seconds", { label: { formatter: (value) => String(Number(value.toPrecision(3))) } }), ...below }],
        yAxis: [{ type: "category", gridIndex: 0, data: spans.map((span) => short(span.name, letters)), ...axis("", { label: { color: color("text"), interval: 0 } }) },
          { type: "category", gridIndex: 1, data: levels, ...axis("", { label: { color: color("text"), interval: 0 } }) }],
        tooltip: tooltip(({ seriesIndex, dataIndex }) => seriesIndex ? [records[dataIndex].severity, records[dataIndex].message.slice(0, 160)] : [spans[dataIndex].name, `${spans[dataIndex].seconds.toFixed(3)} s`, spans[dataIndex].parent ? `part of ${spans[dataIndex].parent}` : ""]),
        series: [
          { type: "custom", name: "phases", xAxisIndex: 0, yAxisIndex: 0, encode: { x: [0, 1], y: 2 }, data: spans.map((span, index) => [span.start_s - start, span.start_s - start + span.seconds, index]), itemStyle: { color: color("now") },
            renderItem: (_, api) => {
              const [x, y] = api.coord([api.value(0), api.value(2)]), [to] = api.coord([api.value(1), api.value(2)]);
              return { type: "rect", shape: { x, y: y - 7, width: Math.max(to - x, 2), height: 14 }, style: { fill: color("now") } };
            } },
          { type: "scatter", name: "messages", xAxisIndex: 1, yAxisIndex: 1, symbolSize: 8, data: records.map((record) => ({ value: [record.time_s - start, record.severity], itemStyle: { color: color(tints[record.severity] ?? "before") } })) },
        ],
      },
      label: `${records.length} messages in ${(end - start).toFixed(2)} seconds, ${records.filter((record) => tints[record.severity] === "bad").length} of them errors`,
      numbers: { columns: ["Phase", "Part of", "Seconds"], rows: [...spans].reverse().map((span) => [span.name, span.parent, span.seconds.toFixed(3)]) },
    };
  }

  // Whether there is anything to draw.
  const has = {
    bars: ({ timing }) => timing.layers.some((row) => row.us != null),
    modules: ({ timing }) => timing.layers.some((row) => row.us > 0),
    trend: ({ timing }) => timing.history?.length > 0 && timing.engine.us != null,
    roofline: ({ timing }) => timing.layers.some((row) => row.flops > 0 && row.bytes > 0 && row.us > 0),
    graph: ({ structure }) => structure.layers.length > 0,
    errors: ({ outputs }) => outputs.outputs.some((row) => row.histogram?.counts?.some(Boolean)),
    map: ({ outputs }) => outputs.outputs.some((row) => row.map),
    rows: ({ outputs }) => outputs.outputs.some((row) => row.rows?.length > 1),
    log: ({ log: said }) => (said.records ?? []).some((record) => record.time_s),
  };
  return { color, us, percent, element, added, has, plots: { bars, modules, trend, roofline, graph, errors, map, rows, log } };
})();
