"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const names = Object.keys(data.restorers);
  const columns = data.columns;
  const byName = Object.fromEntries(columns.map((c) => [c.name, c]));
  const colour = (name) => `var(--c${names.indexOf(name) % 8})`;
  const state = { split: 0, clip: 0, frame: 0, playing: false, sort: null, reference: names[0], stripMetric: null };
  const split = () => data.splits[state.split];
  const clip = () => split().clips[state.clip];

  // --- small tools ----------------------------------------------------------------------------------------------

  function el(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "circle", "rect", "text", "g", "title"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  }
  const fill = (node, ...children) => (node.replaceChildren(...children.filter((c) => c !== null)), node);
  const number = (v) => (v === null || v === undefined ? NaN : v === "inf" ? Infinity : v === "-inf" ? -Infinity : v);
  const finite = (vs) => vs.map(number).filter(Number.isFinite);
  function show(v, c, sign = false) {
    v = number(v);
    if (Number.isNaN(v)) return "–";
    if (!Number.isFinite(v)) return "∞";
    const text = (v * c.factor).toFixed(c.decimals);
    return (sign && v >= 0 ? "+" + text : text).replace("-", "−");
  }
  const arrow = (c) => (c.better ? "↑" : "↓");
  const dot = (name) => el("i", { class: "dot", style: `--c: ${colour(name)}`, "aria-hidden": "true" });
  const words = (text) => el("span", { class: "words", title: text }, text);
  const legend = (node, list) => fill(node, ...list.map((n) => el("span", {}, dot(n), n)));
  function ticks(low, high, count) {
    if (!(high > low)) return [low];
    const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
    const step = base * [1, 2, 2.5, 5, 10].find((m) => m * base >= raw);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Math.abs(v) < step * 1e-9 ? 0 : v);
    return found;
  }
  const marks = (low, high, count) => { const all = ticks(low, high, count); return all.map((v) => [v, all]); };
  const tickText = (v, all) => {
    const step = all.length > 1 ? all[1] - all[0] : Math.abs(v) || 1;
    const places = Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(step) + 1e-9) - (Math.abs(step / 10 ** Math.floor(Math.log10(step) + 1e-9) - 2.5) < .01 ? 0 : 1)));
    return v.toFixed(places).replace("-", "−");
  };
  function scale(low, high, from, to) {
    const span = high - low || 1;
    return (v) => from + ((v - low) / span) * (to - from);
  }
  function padded(values, share = 0.06, least = 0) {
    let low = Math.min(...values), high = Math.max(...values);
    const lacking = Math.max(0, least - (high - low)) / 2;  // values that print alike are drawn flat
    if (lacking) [low, high] = [low - lacking, high + lacking];
    const room = (high - low || Math.abs(high) || 1) * share;
    return [low - room, high + room];
  }

  // --- scores -----------------------------------------------------------------------------------------------------

  function bestOf(rows, c) {
    const shown = rows.map((r) => r.cells[c.name].mean).map(number).filter((v) => !Number.isNaN(v));
    if (shown.length < 2) return null;
    return show(c.better ? Math.max(...shown) : Math.min(...shown), c);
  }

  function drawScores() {
    const rows = [...split().rows];
    const sort = state.sort;
    if (sort) {
      const key = (r) => (sort.column ? number(r.cells[sort.column].mean) : names.indexOf(r.restorer));
      rows.sort((a, b) => (Number.isNaN(key(a)) ? 1 : Number.isNaN(key(b)) ? -1 : sort.down ? key(b) - key(a) : key(a) - key(b)));
    }
    const broken = (text) => text.split(/(?<=[^σ]_)/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
    const header = (label, column, tail) => {
      const active = sort && sort.column === column;
      const button = el("button", { type: "button", "data-column": column ?? "", title: column ? byName[column].protocol : null, on: { click: () => sortBy(column) } }, ...broken(label), tail ? el("span", { class: "dir" }, " " + tail) : null, active ? (sort.down ? " ▾" : " ▴") : "");
      return el("th", { scope: "col", "aria-sort": active ? (sort.down ? "descending" : "ascending") : null }, button);
    };
    const head = el("thead", {}, el("tr", {}, header("Restorer", null), ...columns.map((c) => header(c.header, c.name, arrow(c)))));
    const body = el("tbody");
    for (const row of rows) {
      const cells = columns.map((c) => scoreCell(row, c, rows));
      body.append(el("tr", {}, el("td", { title: data.restorers[row.restorer] }, dot(row.restorer), row.restorer), ...cells));
    }
    fill($("table"), el("caption", { class: "hidden" }, `Scores of ${split().name}`), head, body);
    fill($("notes"), ...split().missing.map((t) => el("li", {}, t)));
  }

  function scoreCell(row, c, rows) {
    const cell = row.cells[c.name];
    const mean = number(cell.mean), low = number(cell.low), high = number(cell.high);
    const parts = [el("span", { class: "mean" }, show(mean, c))];
    if (Number.isFinite(low)) parts.push(el("span", { class: "ci" }, `${show(low, c)} – ${show(high, c)}`));
    const all = finite(rows.flatMap((r) => [r.cells[c.name].mean, r.cells[c.name].low, r.cells[c.name].high]));
    if (Number.isFinite(mean) && all.length > 1) {
      const x = scale(...padded(all, 0.02), 2, 98);
      const svg = el("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true", style: `--c: ${colour(row.restorer)}` });
      svg.append(el("line", { class: "grid", x1: 0, x2: 100, y1: 4, y2: 4 }));
      if (Number.isFinite(low)) svg.append(el("rect", { class: "mark", opacity: .35, x: x(low), width: Math.max(.5, x(high) - x(low)), y: 2.5, height: 3, stroke: "none" }));
      svg.append(el("rect", { class: "mark", x: x(mean) - 1, width: 2, y: 0, height: 8, stroke: "none" }));
      parts.push(svg);
    }
    return el("td", { class: show(mean, c) === bestOf(rows, c) ? "best" : null, "data-value": Number.isNaN(mean) ? "" : mean }, ...parts);
  }

  function sortBy(column) {
    const same = state.sort && state.sort.column === column;
    state.sort = { column, down: same ? !state.sort.down : column !== null && byName[column].better };
    drawScores();
    document.querySelector(`#table th button[data-column="${CSS.escape(column ?? "")}"]`).focus();
  }

  function drawPaper() {
    const level = split().paper, quoted = data.paper;
    $("paper").hidden = !level;
    if (!level) return;
    $("paper-note").textContent = `${quoted.source}. ${split().note}`;
    const rows = Object.entries(quoted.levels[level]);
    const best = quoted.better.map((up, j) => (up ? Math.max : Math.min)(...rows.map(([, v]) => v[j])));
    fill($("paper-table"),
      el("thead", {}, el("tr", {}, el("th", {}, level), ...quoted.headers.map((h) => el("th", {}, h)))),
      el("tbody", {}, ...rows.map(([name, values]) => el("tr", {}, el("td", {}, `${name} (quoted)`),
        ...values.map((v, j) => el("td", { class: v === best[j] ? "best" : null }, v.toFixed(quoted.decimals)))))));
  }

  // --- at a glance: all splits -------------------------------------------------------------------------------------

  function drawGlance() {
    $("glance").hidden = data.splits.length < 2;
    if (data.splits.length < 2) return;
    legend($("glance-legend"), names);
    fill($("glance-charts"), ...columns.map((c) => {
      const host = el("div", { class: "chart" }, el("div", { class: "title" }, `${c.header} ${arrow(c)}`));
      $("glance-charts").append(host);
      const cells = (name) => data.splits.map((s) => s.rows.find((r) => r.restorer === name).cells[c.name]);
      const values = finite(names.flatMap((n) => cells(n).flatMap((q) => [q.mean, q.low, q.high]))).map((v) => v * c.factor);
      if (!values.length) return el("div", { class: "chart" }, el("div", { class: "title" }, c.header), "–");
      const width = 400, height = 170, left = 46, [low, high] = padded(values, 0.1);
      const y = scale(low, high, height - 24, 8);
      const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${c.header} of each split` });
      for (const [v, all] of marks(low, high, 4)) svg.append(el("line", { class: "grid", x1: left, x2: width, y1: y(v), y2: y(v) }), el("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, tickText(v, all)));
      const step = (width - left) / data.splits.length;
      data.splits.forEach((s, i) => svg.append(el("text", { x: left + step * (i + .5), y: height - 6, "text-anchor": "middle" }, s.name)));
      names.forEach((n, k) => {
        const g = el("g", { style: `--c: ${colour(n)}` });
        const shift = (k - (names.length - 1) / 2) * Math.min(14, step / (names.length + 1));
        const points = cells(n).map((q, i) => [left + step * (i + .5) + shift, q]).filter(([, q]) => Number.isFinite(number(q.mean)));
        g.append(el("path", { class: "line", opacity: .45, d: points.map(([x, q], i) => `${i ? "L" : "M"}${x},${y(q.mean * c.factor)}`).join("") }));
        for (const [x, q] of points) {
          if (Number.isFinite(number(q.low))) g.append(el("line", { class: "whisker", x1: x, x2: x, y1: y(q.low * c.factor), y2: y(q.high * c.factor) }));
          g.append(el("circle", { class: "mark", cx: x, cy: y(q.mean * c.factor), r: 3.6 }, el("title", {}, `${n}: ${show(q.mean, c)}`)));
        }
        svg.append(g);
      });
      host.append(svg);
      return host;
    }));
  }

  // --- differences ---------------------------------------------------------------------------------------------------

  function differenceTo(reference, name, metric) {
    for (const p of split().pairs) {
      if (p.metric !== metric) continue;
      if (p.a === name && p.b === reference) return p;
      if (p.a === reference && p.b === name) {
        const minus = (v) => (Number.isNaN(number(v)) ? null : -number(v));
        return { ...p, mean: minus(p.mean), low: minus(p.high), high: minus(p.low) };
      }
    }
    return null;
  }

  function drawForest() {
    $("few").hidden = !split().few.length;
    $("few").textContent = split().few.join(" ");
    const others = names.filter((n) => n !== state.reference);
    const scored = columns.filter((c) => split().pairs.some((p) => p.metric === c.name));
    if (!others.length) return fill($("forest"), el("p", { class: "empty" }, "There is only one restorer: nothing to compare."));
    if (split().clips.length < 2) return fill($("forest"), el("p", { class: "empty" }, "An interval over clips needs at least two clips."));
    fill($("forest"), ...scored.map((c) => {
      const found = others.map((n) => [n, differenceTo(state.reference, n, c.name)]);
      const host = el("div", { class: "chart" }, el("div", { class: "title" }, `${c.header} ${arrow(c)}`));
      const values = finite([0, ...found.flatMap(([, d]) => (d ? [d.mean, d.low, d.high] : []))]).map((v) => v * c.factor);
      const row = 46, width = 400, height = others.length * row + 24, [low, high] = padded(values, .12);
      const x = scale(low, high, 4, width - 4);
      const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${c.header}: differences to ${state.reference}` });
      const lanes = found.map((_, i) => [i * row + 20, i * row + 40]);  // lines stay clear of the text above them
      for (const [top, bottom] of lanes) {
        svg.append(el("rect", { class: "good", x: c.better ? x(0) : 0, y: top, width: c.better ? width - x(0) : x(0), height: bottom - top }));
        for (const v of ticks(low, high, 4)) svg.append(el("line", { class: v === 0 ? "zero" : "grid", x1: x(v), x2: x(v), y1: top, y2: bottom }));
      }
      for (const [v, all] of marks(low, high, 4)) svg.append(el("text", { x: x(v), y: height - 6, "text-anchor": "middle" }, tickText(v, all)));
      found.forEach(([name, d], i) => {
        const g = el("g", { style: `--c: ${colour(name)}` }), y = i * row + 30;
        let text = "no finite difference";
        if (d && Number.isFinite(number(d.mean))) {
          const clear = (number(d.low) > 0 || number(d.high) < 0) && number(d.p) < .05;
          if (Number.isFinite(number(d.low))) g.append(el("line", { class: "whisker", x1: x(d.low * c.factor), x2: x(d.high * c.factor), y1: y, y2: y }));
          g.append(el("circle", { class: `mark${clear ? "" : " hollow"}`, cx: x(d.mean * c.factor), cy: y, r: 4.5 }));
          text = `${show(d.mean, c, true)} [${show(d.low, c, true)}, ${show(d.high, c, true)}]  p ${Number.isFinite(number(d.p)) ? number(d.p).toPrecision(2) : "–"}`;
        }
        const room = Math.floor((width - 16 - 5.7 * text.length) / 6.9);
        g.append(el("text", { class: "name", x: 4, y: y - 14 }, name.length > room ? `${name.slice(0, room - 1)}…` : name, el("title", {}, name)));
        g.append(el("text", { x: width - 4, y: y - 14, "text-anchor": "end" }, text));
        svg.append(g);
      });
      host.append(svg);
      return host;
    }));
  }

  // --- one clip: which ---------------------------------------------------------------------------------------------

  function drawStrip() {
    const metrics = columns.filter((c) => split().clips.some((k) => names.some((n) => number(k.scores[n]?.[c.name]) === number(k.scores[n]?.[c.name]))));
    if (!metrics.length || split().clips.length < 2) return fill($("strip")), void ($("strip").parentElement.hidden = true);
    $("strip").parentElement.hidden = false;
    if (!metrics.some((c) => c.name === state.stripMetric)) state.stripMetric = metrics[0].name;
    fill($("strip-metric"), ...metrics.map((c) => el("option", { value: c.name, selected: c.name === state.stripMetric }, `${c.header} ${arrow(c)}`)));
    const c = byName[state.stripMetric], clips = split().clips;
    const values = finite(clips.flatMap((k) => names.map((n) => k.scores[n]?.[c.name]))).map((v) => v * c.factor);
    if (!values.length) return fill($("strip"));
    const width = Math.max(320, $("strip").clientWidth || 900), height = 130, left = 46, [low, high] = padded(values, .1);
    const y = scale(low, high, height - 8, 8), step = (width - left) / clips.length;
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${c.header} of every clip` });
    svg.append(el("rect", { class: "here", x: left + step * state.clip, y: 0, width: step, height }));
    for (const [v, all] of marks(low, high, 3)) svg.append(el("line", { class: "grid", x1: left, x2: width, y1: y(v), y2: y(v) }), el("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, tickText(v, all)));
    clips.forEach((k, i) => {
      const g = el("g", { on: { click: () => pickClip(i) } }, el("title", {}, k.name), el("rect", { x: left + step * i, y: 0, width: step, height, fill: "transparent", style: "cursor: pointer" }));
      names.forEach((n) => {
        const v = number(k.scores[n]?.[c.name]);
        if (Number.isFinite(v)) g.append(el("circle", { class: "mark", style: `--c: ${colour(n)}`, cx: left + step * (i + .5), cy: y(v * c.factor), r: Math.min(5, Math.max(2.5, step / 4)) }));
      });
      svg.append(g);
    });
    fill($("strip"), svg);
  }

  function pickClip(i) {
    const count = split().clips.length;
    if (!count) return;
    pause();
    state.clip = (i + count) % count;
    state.frame = 0;
    history.replaceState(null, "", `#${encodeURIComponent(split().name)}/${encodeURIComponent(clip().name)}`);
    drawClip();
  }

  function drawClip() {
    const k = clip();
    fill($("clip"), ...split().clips.map((c, i) => el("option", { value: i, selected: i === state.clip }, c.name)));
    const drawn = k.degradation.map((step) => Object.entries(step).map(([key, v]) => (key === "type" ? v : `${key} ${typeof v === "number" ? +v.toPrecision(3) : Array.isArray(v) ? v.map((q) => (typeof q === "number" ? +q.toPrecision(3) : q)).join("/") : v}`)).join(" ")).join(" · ");
    $("clip-facts").textContent = k.frames ? `${k.frames} frames${k.size ? ` of ${k.size[1]}×${k.size[0]}` : ""}${drawn ? " · " + drawn : ""}` : "could not be read";
    drawStrip();
    drawStages(k);
    legend($("legend"), names.filter((n) => k.scores[n]));
    drawCurves(k);
    drawSlices(k);
    seek(0);
  }

  // --- one clip: players -----------------------------------------------------------------------------------------------

  let videos = [];

  function drawStages(k) {
    const panels = Object.entries(k.videos), truth = k.videos.truth;
    videos = [];
    const here = panels.length > 0;
    $("controls").hidden = !here;
    document.querySelector(".keys").hidden = !here;
    if (!here) return void fill($("stages"), el("p", { class: "empty" }, "No video of this clip was saved; see option save.clips."));
    const video = (src, classes) => {
      const v = el("video", { src, class: classes, preload: "auto", playsinline: true, tabindex: "-1" });
      v.muted = true;
      videos.push(v);
      return v;
    };
    const stage = (caption, src, extra) => {
      const pan = el("div", { class: "pan" }, video(src, caption === "input" || extra === "gain" ? "pixels" : ""));
      const box = el("div", { class: "stage", style: `aspect-ratio: ${k.size[1]} / ${k.size[0]}` }, pan);
      if (extra === "truth") pan.append(el("i", { class: "cut", style: `top: ${((k.row + .5) / k.size[0]) * 100}%`, title: "the row of the x–t slices" }));
      if (extra === "restorer" && truth) { box.dataset.restorer = caption; }
      return box;
    };
    const figures = panels.map(([name, src]) => {
      const kind = name === "truth" ? "truth" : name === "input" ? "input" : "restorer";
      return el("figure", {}, el("figcaption", {}, kind === "restorer" ? dot(name) : null, words(name)), stage(name, src, kind));
    });
    const gains = Object.entries(k.gains).map(([name, src]) =>
      el("figure", {}, el("figcaption", {}, dot(name), words(`gain of ${name}`), el("span", { class: "soft scale", title: "K = 0 trusts the prediction, K = 1 the observation" }, " 0", el("i", { class: "ramp" }), "1")), stage(name, src, "gain")));
    const errors = Object.entries(k.errors).map(([name, src]) =>
      el("figure", {}, el("figcaption", {}, dot(name), words(`error that ${name} expects`), el("span", { class: "soft scale", title: "mean error of luma, in grey levels of 255" }, " 0", el("i", { class: "ramp fire" }), "24")), stage(name, src, "gain")));
    const judged = Object.entries(k.judged).flatMap(([name, sources]) => sources.map((src) =>
      el("figure", { class: "judged" }, el("figcaption", {}, dot(name), words("expected and true error")), el("img", { src, alt: `expected and true error of ${name}` }))));
    fill($("stages"), ...figures, ...gains, ...errors, ...judged);
    $("scrub").max = k.frames - 1;
    for (const box of $("stages").querySelectorAll(".stage")) box.addEventListener("pointermove", (event) => {
      const r = box.getBoundingClientRect();
      $("stages").style.setProperty("--x", `${(100 * (event.clientX - r.left)) / r.width}%`);
      $("stages").style.setProperty("--y", `${(100 * (event.clientY - r.top)) / r.height}%`);
    });
    setDifference($("diff").checked);
    videos[0].addEventListener("ended", () => state.playing && (seek(0), start()));
  }

  function setDifference(on) {
    $("diff").checked = on;
    for (const box of $("stages").querySelectorAll(".stage[data-restorer]")) {
      const old = box.querySelector("video.over");
      if (old) { videos = videos.filter((v) => v !== old); old.remove(); }
      box.classList.toggle("diff", on);
      if (!on) continue;
      const over = el("video", { src: clip().videos.truth, class: "over", preload: "auto", playsinline: true, tabindex: "-1" });
      over.muted = true;
      over.addEventListener("loadeddata", () => { if (!videos.includes(over)) return; over.currentTime = videos[0].currentTime; if (state.playing) over.play(); });
      box.querySelector(".pan").append(over);
      videos.push(over);
    }
  }

  function seek(frame) {
    const k = clip();
    state.frame = Math.max(0, Math.min(k.frames - 1, Math.round(frame)));
    for (const v of videos) v.currentTime = (state.frame + .5) / k.fps;
    mark();
  }
  function start() {
    for (const v of videos) { v.playbackRate = +$("speed").value; v.play().catch(() => {}); }
  }
  function play() {
    if (!videos.length) return;
    if (state.frame >= clip().frames - 1) seek(0);
    state.playing = true;
    $("play").textContent = "❚❚";
    $("play").setAttribute("aria-label", "Pause");
    start();
    requestAnimationFrame(follow);
  }
  function pause() {
    const was = state.playing;
    state.playing = false;
    for (const v of videos) v.pause();
    $("play").textContent = "▶";
    $("play").setAttribute("aria-label", "Play");
    if (was) seek(state.frame);  // all videos on the same frame
  }
  function follow() {
    if (!state.playing || !videos.length) return;
    const k = clip(), time = videos[0].currentTime;
    for (const v of videos.slice(1)) if (Math.abs(v.currentTime - time) > 1.2 / k.fps && !v.seeking) v.currentTime = time;
    const frame = Math.min(k.frames - 1, Math.floor(time * k.fps));
    if (frame !== state.frame) { state.frame = frame; mark(); }
    requestAnimationFrame(follow);
  }
  function mark() {
    $("scrub").value = state.frame;
    $("frame").textContent = `${state.frame + 1} / ${clip().frames}`;
    for (const f of heads) f(state.frame);
  }

  // --- one clip: curves ------------------------------------------------------------------------------------------------

  let heads = [];

  function drawCurves(k) {
    heads = [];
    const wanted = columns.filter((c) => c.curve && k.curves[c.name]).map((c) => [`${c.header} ${arrow(c)}`, k.curves[c.name], c]);
    if (k.curves.gain) wanted.push(["Kalman gain K, mean of the frame", k.curves.gain, { factor: 1, decimals: 3 }]);
    fill($("curves"), ...wanted.map(([title, series, c]) => curve(title, series, c, k)));
  }

  function curve(title, series, c, k) {
    const width = 400, height = 150, left = 46, bottom = 20;
    const shown = names.filter((n) => series[n]);
    const values = finite(shown.flatMap((n) => series[n])).map((v) => v * c.factor);
    const read = shown.map((n) => el("span", { class: "value", style: `--c: ${colour(n)}`, title: n }));
    const host = el("div", { class: "chart" }, el("div", { class: "title" }, el("span", {}, title), ...read));
    if (!values.length) return host.append(el("p", { class: "soft" }, "no frame has a finite value")), host;
    const [low, high] = padded(values, .06, 5 * 10 ** -c.decimals), y = scale(low, high, height - bottom, 6), x = scale(0, Math.max(1, k.frames - 1), left, width - 2);
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} over the frames of ${k.name}` });
    for (const [v, all] of marks(low, high, 3)) svg.append(el("line", { class: "grid", x1: left, x2: width, y1: y(v), y2: y(v) }), el("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, tickText(v, all)));
    for (const v of ticks(0, k.frames - 1, 6)) if (Number.isInteger(v)) svg.append(el("text", { x: x(v), y: height - 4, "text-anchor": v === 0 ? "start" : "middle" }, v + 1));
    const hides = (above, below) => {
      const apart = series[above].map((v, t) => Math.abs(y(number(v) * c.factor) - y(number(series[below][t]) * c.factor))).filter(Number.isFinite);
      return apart.length > 0 && apart.filter((v) => v < 1).length > .8 * apart.length;
    };
    shown.forEach((n, i) => {
      let d = "", pen = false;
      series[n].forEach((raw, t) => {
        const v = number(raw);
        if (!Number.isFinite(v)) return void (pen = false);
        d += `${pen ? "L" : "M"}${x(t).toFixed(1)},${y(v * c.factor).toFixed(1)}`;
        if (!pen && !Number.isFinite(number(series[n][t + 1]))) d += "h.01";  // a single frame is a dot
        pen = true;
      });
      const dashed = shown.slice(0, i).some((below) => hides(n, below));  // so that the line beneath stays visible
      svg.append(el("path", { class: "line", d, style: `--c: ${colour(n)}`, "stroke-linecap": dashed ? "butt" : "round", "stroke-dasharray": dashed ? "6 6" : null }));
    });
    const head = el("line", { class: "head", y1: 4, y2: height - bottom });
    svg.append(head);
    const at = (event) => {
      const r = svg.getBoundingClientRect();
      return Math.max(0, Math.min(k.frames - 1, Math.round((((event.clientX - r.left) / r.width) * width - left) / (width - 2 - left) * (k.frames - 1))));
    };
    const showFrame = (t) => {
      head.setAttribute("x1", x(t)); head.setAttribute("x2", x(t));
      shown.forEach((n, i) => { read[i].textContent = show(series[n][t], c); });
    };
    svg.addEventListener("pointermove", (event) => { const t = at(event); if (event.buttons) { pause(); seek(t); } else for (const f of heads) f(t); });
    svg.addEventListener("pointerleave", () => mark());
    svg.addEventListener("pointerdown", (event) => { pause(); seek(at(event)); });
    heads.push(showFrame);
    host.append(svg);
    return host;
  }

  // --- one clip: x–t slices ----------------------------------------------------------------------------------------

  function drawSlices(k) {
    const panels = Object.entries(k.slices);
    $("slices-block").hidden = !panels.length;
    if (!panels.length) return;
    $("slices-lead").textContent = `Row ${k.row} of every frame (dashed in the truth above), time downwards. Smooth motion gives smooth lines; flicker gives horizontal stripes.`;
    const tall = Math.max(1, Math.min(4, Math.round(240 / k.frames)));
    const blank = [...Object.keys(k.gains), ...Object.keys(k.errors)].map(() => el("figure"));  // keeps the columns of the players
    fill($("slices"), ...panels.map(([name, src]) => {
      const line = el("i");
      heads.push((t) => { line.style.top = `${((t + .5) / k.frames) * 100}%`; });
      const image = el("img", { class: "slice", src, alt: `x–t slice of ${name}`, style: `height: ${k.frames * tall}px`, on: { click: (event) => { pause(); seek((event.offsetY / image.clientHeight) * k.frames - .5); } } });
      return el("figure", {}, el("figcaption", {}, names.includes(name) ? dot(name) : null, words(name)), el("div", { class: "slice-box" }, image, line));
    }), ...blank);
  }

  // --- worst frames, time, how it was made -----------------------------------------------------------------------------

  function drawWorst() {
    const found = Object.entries(split().worst).filter(([, frames]) => frames.length);
    $("worst").hidden = !found.length;
    if (!found.length) return;
    const c = byName[found[0][1][0].metric];
    fill($("worst-lead"), `One frame per clip and restorer, the one with the worst ${c.header}; the worst over all clips first. Error: mean over RGB, 0`, el("i", { class: "ramp fire" }), "64 grey levels or more.");
    fill($("worst-list"), ...found.flatMap(([name, frames]) => frames.map((f) => {
      const i = split().clips.findIndex((k) => k.name === f.clip);
      return el("figure", { class: "card" },
        el("figcaption", {}, el("b", {}, dot(name), name), `${c.header} ${show(f.value, c)}`, el("span", { class: "soft" }, `${f.clip}, frame ${f.frame + 1}`),
          el("button", { type: "button", on: { click: () => { pickClip(i); seek(f.frame); $("clips").scrollIntoView(); } } }, "show clip")),
        el("img", { src: f.file, loading: "lazy", alt: `input, ${name}, truth and error of frame ${f.frame + 1} of ${f.clip}` }),
        el("div", { class: "four" }, ...["input", name, "truth", "error"].map((t) => el("span", {}, t))));
    })));
  }

  function drawTimes() {
    const rows = window.keepTimes;
    if (!rows) return;
    const most = Math.max(...rows.slice(0, -1).map((r) => r.seconds));
    const head = ["part", "", "seconds", "share", "ms per frame", "peak memory", ""].map((h) => el("th", {}, h));
    fill($("times"),
      el("p", { class: "lead" }, "Seconds of each part over all clips. Faces and flow that several metrics share count for the first that needs them. Peak memory: of PyTorch on a GPU, of the whole process on a CPU. " + (window.keepOrigin ?? "")),
      el("div", { class: "scroll" }, el("table", { class: "times" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows.map((r, i) => el("tr", {},
        el("td", {}, r.part), el("td", { class: "soft" }, r.kind), el("td", {}, r.seconds.toFixed(2)), el("td", {}, `${r["share %"].toFixed(1)} %`),
        el("td", {}, r["ms/frame"] === null ? "" : r["ms/frame"].toFixed(1)), el("td", {}, r["peak GiB"] === null ? "" : `${r["peak GiB"].toFixed(2)} GiB`),
        el("td", { class: "fill" }, i < rows.length - 1 ? el("i", { style: `width: ${(100 * r.seconds) / most}%` }) : ""))))))); 
  }

  function drawMade() {
    const rows = [...Object.entries(data.restorers), ...columns.map((c) => [c.name, c.protocol]), ...data.origin, ...Object.entries(data.files).map(([path, digest]) => [path.split("/").pop(), `sha256 ${digest} · ${path}`])];
    fill($("facts"), ...rows.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));
    $("options").textContent = data.options;
    if (data.problems.length) {
      fill($("problems"), el("p", {}, "Not everything could be measured"), el("ul", {}, ...data.problems.map((line) => el("li", {}, line))));
      $("problems").hidden = false;
    }
    const clips = data.splits.reduce((n, s) => n + s.clips.length, 0), frames = data.splits.reduce((n, s) => n + s.clips.reduce((m, k) => m + k.frames, 0), 0);
    const some = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
    $("meta").textContent = [some(data.splits.length, "split"), some(clips, "clip"), some(frames, "frame"), some(names.length, "restorer"), some(columns.length, "metric"), data.device === "cuda" ? "GPU" : "CPU"].join(" · ");
  }

  // --- all together --------------------------------------------------------------------------------------------------

  function pickSplit(i, clipIndex = 0) {
    pause();
    state.split = i;
    fill($("splits"), ...data.splits.map((s, j) => el("button", { type: "button", "aria-pressed": String(i === j), on: { click: () => { pickSplit(j); $("splits").children[j].focus(); } } }, s.name)));
    for (const node of document.querySelectorAll(".where")) node.textContent = data.splits.length > 1 ? split().name : "";
    drawScores(); drawPaper(); drawForest(); drawWorst();
    state.clip = Math.min(clipIndex, Math.max(0, split().clips.length - 1));
    state.frame = 0;
    if (split().clips.length) drawClip();
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = (name) => { document.documentElement.dataset.theme = name; };
  theme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => theme(dark.matches ? "dark" : "light"));
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

  fill($("reference"), ...names.map((n) => el("option", { value: n }, n)));
  $("reference").addEventListener("change", (event) => { state.reference = event.target.value; drawForest(); });
  $("clip").addEventListener("change", (event) => pickClip(+event.target.value));
  $("previous").addEventListener("click", () => pickClip(state.clip - 1));
  $("next").addEventListener("click", () => pickClip(state.clip + 1));
  $("strip-metric").addEventListener("change", (event) => { state.stripMetric = event.target.value; drawStrip(); });
  $("play").addEventListener("click", () => (state.playing ? pause() : play()));
  $("back").addEventListener("click", () => { pause(); seek(state.frame - 1); });
  $("forth").addEventListener("click", () => { pause(); seek(state.frame + 1); });
  $("scrub").addEventListener("input", (event) => { pause(); seek(+event.target.value); });
  $("speed").addEventListener("change", () => { for (const v of videos) v.playbackRate = +$("speed").value; });
  const zoom = (value) => {
    $("zoom").value = value;
    $("stages").style.setProperty("--zoom", value);
    $("stages").classList.toggle("zoomed", +value > 1);
  };
  $("zoom").addEventListener("change", (event) => zoom(event.target.value));
  $("diff").addEventListener("change", (event) => setDifference(event.target.checked));
  document.addEventListener("keydown", (event) => {
    const typing = ["SELECT", "TEXTAREA"].includes(event.target.tagName) || (event.target.tagName === "INPUT" && event.target.type !== "checkbox" && event.target.type !== "range");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !split().clips.length) return;
    const many = event.shiftKey ? 10 : 1;
    const actions = {
      " ": () => (event.target.tagName === "BUTTON" || event.target.tagName === "SUMMARY" || event.target.type === "checkbox" ? false : state.playing ? pause() : play()),
      ArrowLeft: () => (pause(), seek(state.frame - many)), ArrowRight: () => (pause(), seek(state.frame + many)),
      Home: () => (event.target.type === "range" ? (pause(), seek(0)) : false), End: () => (event.target.type === "range" ? (pause(), seek(clip().frames - 1)) : false),
      d: () => setDifference(!$("diff").checked), n: () => pickClip(state.clip + 1), p: () => pickClip(state.clip - 1),
      z: () => zoom({ 1: "2", 2: "4", 4: "8", 8: "1" }[$("zoom").value]),
    };
    const action = actions[event.key];
    if (action && action() !== false) event.preventDefault();
  });
  addEventListener("resize", () => split().clips.length && drawStrip());

  drawMade(); drawTimes(); drawGlance();
  const [wantedSplit, wantedClip] = location.hash.slice(1).split("/").map((s) => { try { return decodeURIComponent(s); } catch { return s; } });
  const found = Math.max(0, data.splits.findIndex((s) => s.name === wantedSplit));
  pickSplit(found, Math.max(0, data.splits[found].clips.findIndex((k) => k.name === wantedClip)));
})();
