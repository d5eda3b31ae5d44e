"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const DASHES = ["", "7 4", "2 4", "8 3 2 3"];
  const MANY = 40; // places of a curve, from which on marks would be a thick line
  const charts = JSON.parse(document.getElementById("data").textContent);

  function add(parent, name, attributes = {}, text = null) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  }

  function short(value) {
    for (const [least, by, letter] of [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]])
      if (Math.abs(value) >= least) return `${+(value / by).toPrecision(3)}${letter}`;
    return String(+value.toPrecision(3));
  }

  const exact = (value) => (Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(5)));

  function evenly(low, high, about) {
    const rough = (high - low) / about || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let at = Math.ceil(low / step); at * step <= high + step / 1e6; at++) found.push(at * step);
    return found;
  }

  // On a logarithmic axis the places of the data are labelled, as far as they can be read.
  function ofTheData(values, about) {
    const falling = [...new Set(values)].sort((one, other) => other - one);
    const apart = Math.log(falling[0] / falling.at(-1)) / about;
    return falling.reduce(
      (chosen, value) => (Math.log(chosen.at(-1) / value) >= Math.max(apart, 1e-9) ? [...chosen, value] : chosen),
      [falling[0]],
    );
  }

  // Of whole decades and their halves there may be too few to read a value off.
  function decades(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const factor of [1, 2, 5]) {
        const value = factor * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    return found;
  }

  function scale(low, high, from, to, log) {
    const map = log ? Math.log : (value) => value;
    const [start, length] = [map(low), map(high) - map(low) || 1];
    return (value) => from + ((map(value) - start) / length) * (to - from);
  }

  function show(figure, chart) {
    const box = figure.querySelector(".plot");
    const legend = figure.querySelector(".legend");
    const hidden = new Set();
    const groups = [...new Set(chart.curves.map((curve) => curve.group))].sort((one, other) => one - other);
    let log = chart.log;
    let close = false; // whether the y axis is that of the later half of each curve
    let width = 0;
    const tip = document.createElement("output");
    tip.className = "tip";
    tip.hidden = true;

    function paint(element, curve) {
      const place = groups.indexOf(curve.group);
      if (chart.ordered) {
        const hue = 265 - (225 * place) / Math.max(groups.length - 1, 1);
        element.style.setProperty("--line", `hsl(${hue} 75% var(--shade))`);
      } else element.style.setProperty("--line", `var(--c${place % 8})`);
    }

    function draw() {
      box.querySelector("svg")?.remove();
      const height = Math.round(Math.min(430, Math.max(260, 0.56 * width)));
      const area = { left: 58, right: width - 14, top: 12, bottom: height - 44 };
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", chart.title);
      box.prepend(svg);
      const seen = chart.curves.filter((curve) => !hidden.has(curve));
      const places = seen.flatMap((curve) => curve.places);
      if (!places.length) {
        add(svg, "text", { x: width / 2, y: height / 2, class: "empty" }, "every series is hidden");
        return;
      }
      const xs = places.map((place) => place.x);
      const many = seen.some((curve) => curve.places.length > MANY);
      const bar = (place) => (many ? 0 : (place.spread ?? 0));
      const late = seen.flatMap((curve) => curve.places.slice(close ? Math.floor(curve.places.length / 2) : 0));
      const ys = late.flatMap((place) => [place.mean - bar(place), place.mean + bar(place)]);
      let [low, high] = [Math.min(...xs), Math.max(...xs)];
      if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 1, high + 1];
      const [from, to] = chart.falling ? [area.right - 10, area.left + 10] : [area.left + 10, area.right - 10];
      const x = scale(low, high, from, to, log);
      const positive = places.map((place) => place.mean);
      let [least, most] = chart.logY ? [Math.min(...positive), Math.max(...positive)] : [Math.min(...ys), Math.max(...ys)];
      if (least === most) [least, most] = chart.logY ? [least / 2, most * 2] : [least - 1, most + 1];
      const y = scale(least, most, area.bottom - 8, area.top + 8, chart.logY);

      const across = Math.max(3, Math.min(9, Math.floor((area.right - area.left) / 62)));
      for (const value of log ? ofTheData(xs, across) : evenly(low, high, across)) {
        add(svg, "line", { x1: x(value), x2: x(value), y1: area.top, y2: area.bottom, class: "grid" });
        add(svg, "text", { x: x(value), y: area.bottom + 17, class: "tick middle" }, short(value));
      }
      for (const value of chart.logY ? decades(least, most) : evenly(least, most, 6)) {
        add(svg, "line", { x1: area.left, x2: area.right, y1: y(value), y2: y(value), class: "grid" });
        add(svg, "text", { x: area.left - 7, y: y(value) + 4, class: "tick end" }, short(value));
      }
      const frame = { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top };
      add(svg, "rect", { ...frame, class: "frame" });
      add(svg, "text", { x: (area.left + area.right) / 2, y: height - 6, class: "label middle" }, chart.x);
      const middle = (area.top + area.bottom) / 2;
      add(svg, "text", { x: 13, y: middle, class: "label middle", transform: `rotate(-90 13 ${middle})` }, chart.y);

      const clip = `clip-${figure.dataset.chart}`;
      add(add(svg, "clipPath", { id: clip }), "rect", frame);
      for (const curve of seen) {
        const line = add(svg, "g", { class: "curve", "clip-path": `url(#${clip})` });
        paint(line, curve);
        const points = curve.places.map((place) => `${x(place.x)},${y(place.mean)}`).join(" ");
        add(line, "polyline", { points, "stroke-dasharray": DASHES[curve.style] });
        if (many) continue;
        for (const place of curve.places) {
          const at = x(place.x);
          if (place.spread && !chart.logY)
            add(line, "line", { x1: at, x2: at, y1: y(place.mean - place.spread), y2: y(place.mean + place.spread) });
          add(line, "circle", { cx: at, cy: y(place.mean), r: 3 });
        }
      }
      const mark = add(svg, "circle", { r: 6, class: "mark", visibility: "hidden" });
      svg.addEventListener("pointermove", (event) => {
        const frameNow = svg.getBoundingClientRect();
        const zoom = width / frameNow.width;
        const [px, py] = [(event.clientX - frameNow.left) * zoom, (event.clientY - frameNow.top) * zoom];
        let best = null;
        for (const curve of seen)
          for (const place of curve.places) {
            const far = Math.hypot(x(place.x) - px, y(place.mean) - py);
            if (best === null || far < best.far) best = { far, curve, place };
          }
        if (best.far > 40) return leave();
        const { curve, place } = best;
        const spread = place.spread === null ? "" : ` ± ${exact(place.spread)}`;
        const runs = place.runs > 1 ? `, ${place.runs} runs` : "";
        tip.textContent = `${[curve.label, place.told].filter(Boolean).join(", ")}\n${chart.x}: ${exact(place.x)}\n${chart.y}: ${exact(place.mean)}${spread}${runs}`;
        tip.hidden = false;
        const [left, top] = [x(place.x) / zoom, y(place.mean) / zoom];
        tip.style.left = `${Math.max(0, Math.min(left + 12, frameNow.width - tip.offsetWidth))}px`;
        tip.style.top = `${top > tip.offsetHeight + 14 ? top - tip.offsetHeight - 12 : top + 14}px`;
        mark.setAttribute("cx", x(place.x));
        mark.setAttribute("cy", y(place.mean));
        mark.setAttribute("visibility", "visible");
      });
      function leave() {
        tip.hidden = true;
        mark.setAttribute("visibility", "hidden");
      }
      svg.addEventListener("pointerleave", leave);
    }

    for (const curve of chart.curves) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const sample = add(button, "svg", { viewBox: "0 0 26 10", class: "sample", "aria-hidden": "true" });
      add(sample, "line", { x1: 0, x2: 26, y1: 5, y2: 5, "stroke-dasharray": DASHES[curve.style] });
      button.append(curve.label);
      paint(button, curve);
      button.addEventListener("click", () => {
        if (!hidden.delete(curve)) hidden.add(curve);
        button.setAttribute("aria-pressed", String(!hidden.has(curve)));
        draw();
      });
      legend.append(button);
    }
    const tool = (name, words, change) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `tool ${name}`;
      button.textContent = words();
      button.addEventListener("click", () => {
        change();
        button.textContent = words();
        draw();
      });
      legend.append(button);
    };
    if (chart.curves.length > 4)
      tool("all", () => (hidden.size < chart.curves.length ? "hide all" : "show all"), () => {
        const none = hidden.size < chart.curves.length;
        hidden.clear();
        if (none) chart.curves.forEach((curve) => hidden.add(curve));
        for (const button of legend.querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", String(!none));
      });
    if (chart.curves.every((curve) => curve.places.every((place) => place.x > 0)))
      tool("scale", () => (log ? "axis: logarithmic" : "axis: linear"), () => (log = !log));
    if (chart.x === "step") tool("close", () => (close ? "whole curves" : "close-up of the end"), () => (close = !close));
    box.append(tip);
    const fit = () => {
      const now = Math.max(300, box.clientWidth || 720);
      if (now === width) return;
      width = now;
      draw();
    };
    fit();
    new ResizeObserver(fit).observe(box);
  }

  document.querySelectorAll("figure[data-chart]").forEach((figure) => show(figure, charts[figure.dataset.chart]));
})();
