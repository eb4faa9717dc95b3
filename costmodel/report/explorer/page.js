"use strict";
/* Sections of analyses: what each shows is in the JSON beside it; names reach the page as text alone. */
(() => {
  const svgNames = "http://www.w3.org/2000/svg";

  // -- small tools ---------------------------------------------------------------------------

  function element(tag, attributes = {}, ...children) {
    const made = tag.startsWith("svg:") ? document.createElementNS(svgNames, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(made.style, value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  const prefixes = [["P", 1e15], ["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1], ["m", 1e-3], ["µ", 1e-6], ["n", 1e-9]];

  function prefixOf(value) {
    return prefixes.find(([, scale]) => Math.abs(value) >= scale) || (value ? prefixes[8] : prefixes[5]);
  }

  function quantity(value, unit) {
    if (value === null || value === undefined) return "–";
    const [prefix, scale] = prefixOf(value);
    const number = value / scale;
    const digits = Math.abs(number) >= 100 ? 0 : Math.abs(number) >= 10 ? 1 : 2;
    return value === 0 ? `0 ${unit}` : `${number.toFixed(digits)} ${prefix}${unit}`;
  }

  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const tip = document.body.appendChild(element("div", { class: "tip", role: "tooltip" }));

  function showTip(event, title, lines) {
    tip.replaceChildren(element("b", {}, title), ...lines.map((line) => element("div", {}, line)));
    tip.style.visibility = "visible";
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const below = event.clientY + 16 + box.height < innerHeight;
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${below ? event.clientY + 16 : Math.max(event.clientY - box.height - 10, 4)}px`;
  }

  function hideTip() {
    tip.style.visibility = "hidden";
  }

  // -- light and dark ------------------------------------------------------------------------

  let redraw = () => {};
  const isDark = () => css("color-scheme") === "dark";
  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    retheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme);

  function retheme() {
    theme.textContent = isDark() ? "light" : "dark";
    redraw();
  }

  // -- one analysis ----------------------------------------------------------------------------

  function explore(section) {
    const data = JSON.parse(section.querySelector(".data").textContent);
    data.ops = (data.ops.name || []).map((_, place) => Object.fromEntries(Object.entries(data.ops).map(([key, values]) => [key, values[place]])));
    const part = (name) => section.querySelector(`.${name}`);
    const colour = (kind) => data.colours[kind % data.colours.length];

    // -- where the time goes -------------------------------------------------------------------

    function shares(place, parts) {
      const bar = element("div", { class: "split" });
      const keys = element("div", { class: "keys" });
      for (const [name, seconds, paint] of parts.filter(([, seconds]) => seconds > 0)) {
        const share = seconds / data.latency_s;
        const about = [`${quantity(seconds, "s")}, ${percent(share)}`];
        bar.append(element("i", {
          style: { width: `${100 * share}%`, background: paint },
          onmousemove: (event) => showTip(event, name, about), onmouseleave: hideTip,
        }));
        const swatch = element("span", { class: "swatch", style: { background: paint } });
        keys.append(element("span", {}, swatch, `${name} ${percent(share)}`));
      }
      part(place).append(bar, keys);
    }

    const boundColours = { compute: "var(--accent)", memory: "var(--more)", launch: "var(--soft)", free: "var(--line)" };
    const sums = (key) => {
      const found = new Map();
      for (const op of data.ops) found.set(op[key], (found.get(op[key]) || 0) + op.time);
      return [...found].sort((a, b) => b[1] - a[1]);
    };
    shares("bounds", sums("bound").map(([bound, seconds]) => [`${bound}-bound`, seconds, boundColours[bound]]));
    if (new Set(data.ops.map((op) => op.phase)).size > 1) {
      const order = ["forward", "backward", "optimizer"];
      const paint = (phase) => ["var(--bar)", "var(--more)", "var(--less)"][order.indexOf(phase)] || "var(--soft)";
      shares("phases", sums("phase").sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0])).map(([phase, seconds]) => [phase, seconds, paint(phase)]));
    }
    shares("kinds", sums("kind").map(([kind, seconds]) => [data.kinds[kind], seconds, colour(kind)]));

    // -- from FLOPs to time --------------------------------------------------------------------

    function waterfall() {
      const steps = data.causes;
      const width = 600, left = 190, right = 66, row = 22, top = 6;
      const height = top + row * (steps.length + 1) + 8;
      let highest = data.latency_s, running = 0;
      for (const step of steps) { running += step.seconds; highest = Math.max(highest, running); }
      const x = (seconds) => left + (seconds / highest) * (width - left - right);
      const chart = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "From FLOPs to time" });
      let now = 0;
      steps.forEach((step, place) => {
        const next = now + step.seconds, y = top + row * place;
        const group = element("svg:g", {
          class: "step",
          onmousemove: (event) => showTip(event, step.label, [
            `${step.seconds < 0 ? "−" : place ? "+" : ""}${quantity(Math.abs(step.seconds), "s")}, ${percent(step.seconds / data.latency_s)} of the step`,
            step.meaning, ...step.nodes.map(([name, seconds]) => `${name}: ${quantity(seconds, "s")}`),
          ]),
          onmouseleave: hideTip,
        });
        group.append(
          element("svg:rect", { x: 0, y, width, height: row, fill: "transparent", stroke: "none" }),
          element("svg:rect", {
            x: x(Math.min(now, next)), y: y + 4, width: Math.max(x(Math.max(now, next)) - x(Math.min(now, next)), 1), height: row - 8, rx: 2,
            fill: place === 0 ? "var(--accent)" : step.seconds < 0 ? "var(--less)" : "var(--more)",
          }),
          element("svg:text", { x: left - 8, y: y + 15, "text-anchor": "end" }, step.label),
          element("svg:text", { x: x(Math.max(now, next)) + 5, y: y + 15, class: "soft" },
            `${step.seconds < 0 ? "−" : place ? "+" : ""}${quantity(Math.abs(step.seconds), "s")}`),
          element("svg:line", { x1: x(next), x2: x(next), y1: y + row - 4, y2: y + row + 4, class: "axis" }),
        );
        chart.append(group);
        now = next;
      });
      const y = top + row * steps.length;
      chart.append(
        element("svg:rect", { x: left, y: y + 4, width: x(data.latency_s) - left, height: row - 8, rx: 2, fill: "var(--ink)" }),
        element("svg:text", { x: left - 8, y: y + 15, "text-anchor": "end", "font-weight": 600 }, "predicted"),
        element("svg:text", { x: x(data.latency_s) + 5, y: y + 15, "font-weight": 600 }, quantity(data.latency_s, "s")),
      );
      part("causes").append(chart);
    }

    // -- roofline ------------------------------------------------------------------------------

    function roofline() {
      const place = part("roofline");
      const dots = data.dots;
      if (!dots.length) { place.append(element("p", { class: "notes" }, "No kernel computes anything.")); return; }
      const width = 600, height = 360, left = 52, bottom = 40, top = 12, right = 10;
      const ridge = data.roofs[0].flop_per_s / data.bytes_per_s;
      const low = Math.min(...dots.map((d) => d.x), ridge) / 2, high = Math.max(...dots.map((d) => d.x), 3 * ridge) * 2;
      const least = Math.min(...dots.map((d) => d.y)) / 3, most = 2.5 * Math.max(...data.roofs.map((r) => r.flop_per_s));
      const x = (v) => left + (Math.log(v / low) / Math.log(high / low)) * (width - left - right);
      const y = (v) => height - bottom - (Math.log(v / least) / Math.log(most / least)) * (height - bottom - top);
      const chart = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Roofline" });
      const decades = (from, to) => {
        const found = [];
        for (let power = Math.ceil(Math.log10(from) - 1e-9); power <= Math.log10(to); power++) found.push(10 ** power);
        return found;
      };
      for (const v of decades(low, high)) {
        chart.append(element("svg:line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: height - bottom }),
          element("svg:text", { class: "soft", x: x(v), y: height - bottom + 16, "text-anchor": "middle" }, v >= 1 ? String(Math.round(v)) : String(+v.toPrecision(1))));
      }
      for (const v of decades(least, most)) {
        const [prefix, scale] = prefixOf(v);
        chart.append(element("svg:line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }),
          element("svg:text", { class: "soft", x: left - 6, y: y(v) + 4, "text-anchor": "end" }, `${Math.round(v / scale)} ${prefix}`));
      }
      chart.append(element("svg:text", { class: "soft", x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, `FLOP per byte of ${data.level}`),
        element("svg:text", { class: "soft", x: 12, y: height / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${height / 2})` }, "FLOP/s"));
      const labels = [];
      for (const roof of data.roofs) {
        const knee = roof.flop_per_s / data.bytes_per_s;
        const start = Math.max(low, least / data.bytes_per_s);
        chart.append(element("svg:path", { class: "roof", d: `M${x(start)} ${y(start * data.bytes_per_s)}L${x(knee)} ${y(roof.flop_per_s)}L${x(high)} ${y(roof.flop_per_s)}` }));
        labels.push(element("svg:text", { class: "halo", x: width - right, y: y(roof.flop_per_s) - 6, "text-anchor": "end" }, `${roof.label}: ${quantity(roof.flop_per_s, "FLOP/s")}, ridge at ${knee.toFixed(0)} FLOP/B`));
      }
      const whole = dots.reduce((sum, d) => sum + d.seconds, 0);
      const byKind = new Map();
      for (const d of [...dots].sort((a, b) => b.seconds - a.seconds)) {
        const circle = element("svg:circle", {
          class: "dot", cx: x(d.x), cy: y(d.y), r: 3 + 26 * Math.sqrt(d.seconds / whole), fill: colour(d.kind),
          onmousemove: (event) => showTip(event, d.label, [
            `${data.kinds[d.kind]}, ${d.algorithm}${d.tile ? ` ${d.tile}` : ""}`,
            `${quantity(d.y, "FLOP/s")} at ${d.x.toPrecision(3)} FLOP/B: ${percent(d.y / Math.min(d.peak, d.x * data.bytes_per_s))} of its roof`,
            `${quantity(d.seconds, "s")} on the device in ${d.count} ${d.count === 1 ? "launch" : "launches"}; bound by ${d.bound}`,
          ]),
          onmouseleave: hideTip, onclick: () => filterBy(d.label),
        });
        chart.append(circle);
        byKind.set(d.kind, [...(byKind.get(d.kind) || []), circle]);
      }
      chart.append(...labels);
      place.append(chart);
      const keys = element("div", { class: "keys" });
      for (const [kind, circles] of [...byKind].sort((a, b) => a[0] - b[0])) {
        const button = element("button", { "aria-pressed": "true" }, element("span", { class: "swatch", style: { background: colour(kind) } }), data.kinds[kind]);
        button.addEventListener("click", () => {
          const shown = button.getAttribute("aria-pressed") !== "true";
          button.setAttribute("aria-pressed", String(shown));
          circles.forEach((circle) => { circle.style.display = shown ? "" : "none"; });
        });
        keys.append(button);
      }
      place.append(keys);
    }

    // -- timeline ------------------------------------------------------------------------------

    function timeline() {
      const canvas = part("lanes");
      const lanes = data.lanes; // [{name, blocks: [[start, end, kind or -1, label, detail...]]}]
      const row = 34, axis = 24, left = 86;
      let from = 0, to = data.latency_s, drag = null;
      const draw = () => {
        const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = row * lanes.length + axis;
        canvas.style.height = `${height}px`;
        canvas.width = width * ratio; canvas.height = height * ratio;
        const pen = canvas.getContext("2d");
        pen.scale(ratio, ratio);
        pen.clearRect(0, 0, width, height);
        pen.font = "11.5px system-ui, sans-serif";
        pen.textBaseline = "middle";
        const x = (seconds) => left + ((seconds - from) / (to - from)) * (width - left);
        const ink = css("--ink"), soft = css("--soft"), panel = css("--panel"), line = css("--line");
        lanes.forEach((lane, place) => {
          const y = row * place + 4, tall = row - 8;
          pen.save();
          pen.beginPath(); pen.rect(left, y, width - left, tall); pen.clip();
          for (const [start, end, kind, label] of lane.blocks) {
            if (end < from || start > to) continue;
            const begin = Math.max(x(start), left - 2), wide = Math.min(x(end), width + 2) - begin;
            pen.fillStyle = kind < 0 ? line : colour(kind);
            pen.fillRect(begin, y, Math.max(wide, 0.6), tall);
            if (wide > 4) { pen.strokeStyle = panel; pen.lineWidth = 0.6; pen.strokeRect(begin, y, wide, tall); }
            if (wide > 14) {
              pen.fillStyle = kind < 0 ? ink : "#ffffff";
              const room = wide - 8, names = label.split(".");
              const text = names.map((_, first) => names.slice(first).join(".")).find((words) => pen.measureText(words).width <= room);
              if (text) pen.fillText(text, begin + 4, y + tall / 2);
            }
          }
          if (lane.curve) {
            pen.fillStyle = css("--bar");
            pen.beginPath();
            pen.moveTo(x(lane.curve[0][0]), y + tall);
            lane.curve.forEach(([start, bytes], at) => {
              const next = at + 1 < lane.curve.length ? lane.curve[at + 1][0] : data.latency_s;
              const top = y + tall - (tall * bytes) / lane.most;
              pen.lineTo(x(start), top);
              pen.lineTo(x(next), top);
            });
            pen.lineTo(x(data.latency_s), y + tall);
            pen.fill();
          }
          pen.restore();
          pen.fillStyle = soft;
          pen.textAlign = "left";
          pen.fillText(lane.name, 0, y + tall / 2);
        });
        const span = to - from, power = 10 ** Math.floor(Math.log10(span / 5));
        const pace = [1, 2, 5, 10].map((m) => m * power).find((m) => span / m <= 8);
        pen.fillStyle = soft; pen.strokeStyle = line; pen.textAlign = "center";
        for (let tick = Math.ceil(from / pace) * pace; tick <= to; tick += pace) {
          const at = x(tick);
          pen.beginPath(); pen.moveTo(at, row * lanes.length); pen.lineTo(at, row * lanes.length + 5); pen.stroke();
          const half = 26;
          pen.fillText(quantity(tick < pace / 1e6 ? 0 : tick, "s"), Math.min(Math.max(at, left + half), width - half), row * lanes.length + 14);
        }
      };
      const seconds = (event) => {
        const box = canvas.getBoundingClientRect();
        return from + (Math.max(event.clientX - box.left - left, 0) / (box.width - left)) * (to - from);
      };
      const show = (start, end) => {
        const span = Math.min(Math.max(end - start, data.latency_s / 2e5), data.latency_s);
        from = Math.min(Math.max(start, 0), data.latency_s - span);
        to = from + span;
        draw();
      };
      const zoom = (factor, at = (from + to) / 2) => show(at - (at - from) * factor, at + (to - at) * factor);
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) show(from + (event.deltaX / 800) * (to - from), to + (event.deltaX / 800) * (to - from));
        else zoom(1.0016 ** event.deltaY, seconds(event));
      }, { passive: false });
      canvas.addEventListener("pointerdown", (event) => { drag = [seconds(event), from, to]; canvas.setPointerCapture(event.pointerId); });
      canvas.addEventListener("pointerup", () => { drag = null; });
      canvas.addEventListener("dblclick", () => show(0, data.latency_s));
      canvas.addEventListener("keydown", (event) => {
        const step = 0.2 * (to - from);
        const moves = { ArrowLeft: () => show(from - step, to - step), ArrowRight: () => show(from + step, to + step), "+": () => zoom(0.6), "-": () => zoom(1.7), "0": () => show(0, data.latency_s) };
        if (moves[event.key]) { event.preventDefault(); moves[event.key](); }
      });
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        if (drag) {
          const moved = ((event.clientX - box.left - left) / (box.width - left)) * (drag[2] - drag[1]) + drag[1] - drag[0];
          show(drag[1] - moved, drag[2] - moved);
          return;
        }
        const lane = lanes[Math.floor((event.clientY - box.top) / row)];
        const at = seconds(event);
        const point = lane && lane.curve && event.clientX >= box.left + left && lane.curve.findLast(([start]) => start <= at);
        if (point) {
          showTip(event, "memory allocated", [`${quantity(point[1], "B")} of ${quantity(lane.most, "B")} at most`]);
          return;
        }
        const block = lane && event.clientX >= box.left + left && lane.blocks.find(([start, end]) => start <= at && at < end);
        if (!block) { hideTip(); return; }
        const [start, end, kind, label, ...more] = block;
        showTip(event, label, [...(kind < 0 ? [] : [data.kinds[kind]]), `${quantity(end - start, "s")}, from ${quantity(start, "s")}`, ...more]);
      });
      canvas.addEventListener("pointerleave", hideTip);
      part("zoom-in").addEventListener("click", () => zoom(0.5));
      part("zoom-out").addEventListener("click", () => zoom(2));
      part("zoom-all").addEventListener("click", () => show(0, data.latency_s));
      redraws.set(section, draw);
      draw();
    }

    // -- table by module -----------------------------------------------------------------------

    const columns = [
      { key: "count", title: "ops", unit: "" }, { key: "flops", title: "FLOPs", unit: "FLOP" }, { key: "macs", title: "MACs", unit: "MAC" },
      { key: "params", title: "params", unit: "" }, { key: "bytes", title: "bytes", unit: "B" }, { key: "time", title: "time", unit: "s" },
    ];
    const added = columns.map((column) => column.key);

    const nodesOf = (node) => [...node.children.values()];

    function grow() {
      const root = { name: "", path: "", children: new Map(), order: 0 };
      let order = 0;
      for (const op of data.ops) {
        let node = root;
        for (const name of op.module ? op.module.split(".") : []) {
          if (!node.children.has(name)) node.children.set(name, { name, path: node.path ? `${node.path}.${name}` : name, children: new Map(), order: order++ });
          node = node.children.get(name);
        }
        node.children.set(` ${order}`, { name: op.op, path: op.name, leaf: op, order: order++ });
      }
      const merge = (node) => {
        for (const [key, child] of node.children || []) {
          if (child.leaf) continue;
          const inside = nodesOf(child);
          if (inside.length === 1 && inside[0].leaf) node.children.set(key, { ...inside[0], module: child.name, order: child.order });
          else merge(child);
        }
      };
      merge(root);
      const sum = (node) => {
        if (node.leaf) Object.assign(node, { ...node.leaf, name: node.name, module: node.module, count: 1 });
        else {
          for (const key of added) node[key] = 0;
          const bounds = new Map();
          for (const child of node.children.values()) {
            sum(child);
            for (const key of added) node[key] += child[key];
            bounds.set(child.bound, (bounds.get(child.bound) || 0) + child.time);
          }
          node.bound = [...bounds].sort((a, b) => b[1] - a[1])[0]?.[0] || "free";
        }
        node.intensity = node.bytes ? node.flops / node.bytes : null;
        node.share = node.time / data.latency_s;
      };
      sum(root);
      return root;
    }

    const root = grow();
    const open = new Set();
    let sortKey = null, descending = true, wanted = "", flat = false;

    function ordered(nodes) {
      if (!sortKey) return nodes.sort((a, b) => a.order - b.order);
      const value = (node) => (sortKey === "name" ? node.module || node.name : sortKey === "bound" ? node.bound : node[sortKey] ?? -1);
      const sign = descending ? -1 : 1;
      return nodes.sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) || a.order - b.order);
    }

    function matches(node) {
      const leaf = node.leaf;
      return `${node.path} ${leaf.op} ${leaf.algorithm} ${leaf.bound}`.toLowerCase().includes(wanted);
    }

    function* visible(node, depth) {
      for (const child of ordered(nodesOf(node))) {
        if (child.leaf) { if (!wanted || matches(child)) yield [child, depth]; continue; }
        const below = wanted ? [...visible(child, depth + 1)] : null;
        if (below && !below.length) continue;
        yield [child, depth];
        if (below) yield* below;
        else if (open.has(child.path)) yield* visible(child, depth + 1);
      }
    }

    function leaves(node, found = []) {
      for (const child of nodesOf(node)) child.leaf ? found.push(child) : leaves(child, found);
      return found;
    }

    const scales = new Map(columns.map(({ key, unit }) => [key, unit || key === "params" ? prefixOf(root[key] / 10) : ["", 1]]));
    const heads = [
      { key: "name", title: "module" }, ...columns, { key: "intensity", title: "FLOP/B", unit: "" },
      { key: "share", title: "share", unit: "%" }, { key: "bound", title: "bound", unit: "" }, { key: null, title: "algorithm", unit: "" },
    ];

    function cell(node, column) {
      const [, scale] = scales.get(column.key);
      const value = node[column.key] / scale;
      return element("td", {}, node[column.key] === 0 ? "0" : scale === 1 ? value.toLocaleString("en") : value < 0.005 ? "<0.01" : value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }));
    }

    function rowOf(node, depth) {
      const name = element("td", { class: "name", title: node.path });
      name.style.paddingLeft = `${0.6 + 1.1 * depth}rem`;
      if (node.leaf) name.append(element("span", { class: "leaf" }), ...(flat ? [node.path, " "] : node.module ? [node.module, " "] : []), element("span", { class: "op" }, node.name));
      else {
        const isOpen = open.has(node.path) || Boolean(wanted);
        const fold = element("button", { class: "fold", "aria-expanded": String(isOpen), "aria-label": `fold ${node.path}` }, isOpen ? "▾" : "▸");
        fold.addEventListener("click", () => { open.has(node.path) ? open.delete(node.path) : open.add(node.path); fill(); });
        name.append(fold, node.name);
      }
      const share = element("td", { class: "share" }, element("i", { style: { width: `calc(${(100 * Math.min(Math.max(node.share, 0), 1)).toFixed(2)}% - 1rem * ${Math.min(Math.max(node.share, 0), 1).toFixed(3)})` } }), element("span", {}, (100 * node.share).toFixed(1)));
      const row = element("tr", {}, name, ...columns.map((column) => cell(node, column)),
        element("td", {}, node.intensity === null ? "–" : node.intensity.toFixed(node.intensity >= 10 ? 0 : 2)), share,
        element("td", { class: `left ${node.bound}` }, node.bound), element("td", { class: "left" }, node.leaf ? node.leaf.algorithm : ""));
      if (node.leaf) {
        name.addEventListener("mousemove", (event) => showTip(event, node.path, [node.leaf.op, `in ${node.leaf.inputs || "–"}`, `out ${node.leaf.outputs || "–"}`]));
        name.addEventListener("mouseleave", hideTip);
      }
      return row;
    }

    const table = part("modules");

    function fill() {
      const rows = flat ? ordered(leaves(root)).filter((node) => !wanted || matches(node)).map((node) => [node, 0]) : [...visible(root, 0)];
      table.tBodies[0].replaceChildren(...rows.map(([node, depth]) => rowOf(node, depth)));
      const operators = rows.filter(([node]) => node.leaf).length;
      part("shown").textContent = wanted ? `${operators.toLocaleString("en")} of ${data.ops.length.toLocaleString("en")} operators match` : "";
      for (const head of table.tHead.rows[0].cells) {
        head.setAttribute("aria-sort", head.dataset.key && head.dataset.key === sortKey ? (descending ? "descending" : "ascending") : "none");
      }
    }

    function filterBy(text) {
      wanted = text.toLowerCase();
      part("filter").value = text;
      fill();
      part("table").scrollIntoView({ behavior: "smooth" });
    }

    function modules() {
      const head = table.createTHead().insertRow();
      for (const column of heads) {
        const scale = scales.get(column.key);
        const unit = element("span", { class: "unit" }, scale ? scale[0] + column.unit : column.unit || "");
        const title = column.key ? element("button", {}, column.title) : column.title;
        const th = element("th", { scope: "col", ...(["name", "bound"].includes(column.key) || !column.key ? { class: "left" } : {}) }, title, unit);
        if (column.key) {
          th.dataset.key = column.key;
          title.addEventListener("click", () => {
            const first = !["name", "bound"].includes(column.key);
            if (sortKey !== column.key) { sortKey = column.key; descending = first; }
            else if (descending === first) descending = !first;
            else sortKey = null;
            fill();
          });
        }
        head.append(th);
      }
      table.createTBody();
      const foot = table.createTFoot().insertRow();
      foot.append(element("td", {}, "total"), ...columns.map((column) => cell({ ...root, ...data.totals }, column)),
        element("td", {}, root.intensity === null ? "–" : root.intensity.toFixed(1)), element("td", {}, "100.0"), element("td"), element("td"));
      const all = (node) => nodesOf(node).forEach((child) => { if (!child.leaf) { open.add(child.path); all(child); } });
      part("unfold").addEventListener("click", () => { all(root); fill(); });
      part("fold").addEventListener("click", () => { open.clear(); fill(); });
      part("flat").addEventListener("change", (event) => { flat = event.target.checked; fill(); });
      part("filter").addEventListener("input", (event) => { wanted = event.target.value.trim().toLowerCase(); fill(); });
      // as much of the tree as fits a screen, a level at a time
      for (let level = nodesOf(root).filter((node) => !node.leaf); level.length;) {
        const below = level.flatMap((node) => nodesOf(node));
        if ([...visible(root, 0)].length + below.length > 36) break;
        level.forEach((node) => open.add(node.path));
        level = below.filter((node) => !node.leaf);
      }
      fill();
    }

    waterfall();
    roofline();
    modules();
    timeline();
  }

  // -- several of them -------------------------------------------------------------------------

  const redraws = new Map();
  const sections = [...document.querySelectorAll("section.run")];
  const picker = document.getElementById("run");

  function show(place) {
    sections.forEach((section, at) => { section.hidden = at !== place; });
    if (!redraws.has(sections[place])) explore(sections[place]);
    redraw = redraws.get(sections[place]);
    redraw();
  }

  if (picker) picker.addEventListener("change", () => show(picker.selectedIndex));
  addEventListener("resize", () => redraw());
  show(0);
  retheme();
  document.documentElement.dataset.ready = "true";
})();
