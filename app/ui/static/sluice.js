// What is live. Everything else on a page works without this file.
(() => {
  "use strict";

  // A payload is copied as its bytes stand on the page.
  document.addEventListener("click", event => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    navigator.clipboard.writeText(source.textContent).then(() => {
      const before = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = before; }, 1500);
    });
  });

  // A form that has been sent is not sent again by a second click.
  document.addEventListener("submit", event => {
    if (event.defaultPrevented || event.target.method !== "post") return;
    if (event.target.dataset.sent) return event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach(form => { delete form.dataset.sent; }));

  // What is not the page (a refusal, the login) never takes its place: what is shown stays until the next update.
  document.addEventListener("htmx:before:swap", event => {
    if (!event.detail.ctx.text?.includes('<main id="main"')) event.preventDefault();
  });

  // Charts: the figures stand in the page, so that nothing is fetched.
  const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]];
  const color = name => resolved(`var(--${name})`);
  const probe = document.createElement("span");
  const resolved = value => {
    probe.style.color = value;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
  const seconds = value => value == null ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : value < 60 ? `${+value.toFixed(1)} s` : `${+(value / 60).toFixed(1)} min`;
  const drawn = new Map();

  const draw = (figure, again) => {
    const lines = JSON.parse(figure.dataset.lines);
    const at = JSON.parse(figure.dataset.at).map(instant => Date.parse(instant) / 1000);
    const values = JSON.parse(figure.dataset.values);
    if (!again && drawn.has(figure)) return drawn.get(figure).setData([at, ...values]);
    const words = figure.dataset.unit === "seconds" ? seconds : value => value == null ? "–" : SHORT.format(value);
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: color("soft"), font, grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
    const options = {
      width: Math.max(200, figure.clientWidth - 32),
      height: 170,
      padding: [10, 18, 0, 0],
      cursor: { points: { size: 6 }, drag: { x: false, y: false } },
      legend: { markers: { width: 2 } },
      scales: { y: { range: (_, __, most) => [0, Math.max(most || 0, figure.dataset.unit === "seconds" ? 0.1 : 4) * 1.08] } },
      axes: [
        { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map(tick => new Date(tick * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) },
        { ...axis, size: 46, space: 34, values: (_, ticks) => ticks.map(words) },
      ],
      series: [
        { value: (_, instant) => instant == null ? "" : new Date(instant * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" }), label: "At" },
        ...lines.map(([, label, tone], n) => ({ label, stroke: color(tone), width: 1.75, dash: DASHES[n], points: { show: false }, value: (_, value) => value == null ? "" : words(value) })),
      ],
    };
    drawn.get(figure)?.destroy();
    drawn.set(figure, new uPlot(options, [at, ...values], figure));
  };
  const drawAll = again => {
    for (const [figure, chart] of drawn) if (!figure.isConnected) { chart.destroy(); drawn.delete(figure); }
    document.querySelectorAll(".chart").forEach(figure => draw(figure, again));
  };
  drawAll(true);
  document.addEventListener("htmx:after:swap", () => drawAll(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  let resizing = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(() => drawAll(true)); });
})();
