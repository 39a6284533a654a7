// Figures are drawn when they come near the window, then the rest while the page is idle, so that
// a page of many figures opens at once. Text and grid follow the page's colours.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paperWidth = 700; // pixels of an upright sheet between its margins
  let printing = false;
  const plots = [...document.querySelectorAll(".plot")];
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  function colours(layout) {
    const night = dark.matches && !printing;
    const ink = night ? "#d5dce6" : "#1b2430";
    const grid = night ? "#2c3644" : "#e3e8ee";
    const update = {
      "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": "#8d97a5", "modebar.activecolor": ink,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": ink,
      "font.family": "system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif", "font.size": 12,
    };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(name)) {
        Object.assign(update, {
          [`${name}.gridcolor`]: grid, [`${name}.linecolor`]: grid, [`${name}.tickcolor`]: grid,
        });
      }
    }
    return update;
  }

  function applied(layout) {
    for (const [path, value] of Object.entries(colours(layout))) {
      const keys = path.split(".");
      const last = keys.pop();
      let place = layout;
      for (const key of keys) place = place[key] ??= {};
      place[last] = value;
    }
    return layout;
  }

  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "yes";
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    Plotly.newPlot(plot, figure.data, applied(figure.layout), options);
  }

  // Parallel coordinates are drawn on canvases, a moment too late for the printer: they are scaled.
  function redress() {
    const width = printing ? { width: paperWidth } : { width: null, autosize: true };
    for (const plot of plots.filter((p) => p.dataset.drawn)) {
      if (plot.data[0].type === "parcoords") {
        plot.style.zoom = printing ? Math.min(1, paperWidth / plot.offsetWidth) : "";
      } else {
        Plotly.relayout(plot, { ...colours(plot.layout), ...width });
      }
    }
  }

  const near = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
    { rootMargin: "300px" },
  );
  plots.forEach((plot) => near.observe(plot));

  // A frame that Chromium takes for unseen, as MLflow's preview on a busy machine, is never idle.
  const idle = window.requestIdleCallback
    ? (call) => requestIdleCallback(call, { timeout: 1000 })
    : (call) => setTimeout(call, 60);
  const rest = [...plots];
  function next() {
    const plot = rest.shift();
    if (plot === undefined) {
      document.documentElement.dataset.ready = "yes";
      return;
    }
    draw(plot);
    idle(next);
  }
  addEventListener("load", () => idle(next));

  dark.addEventListener("change", redress);
  addEventListener("beforeprint", () => {
    printing = true;
    plots.forEach(draw);
    redress();
  });
  addEventListener("afterprint", () => {
    printing = false;
    redress();
  });
})();
