// Figures are drawn when they come near the window, then the rest while the page is idle, so that
// a page of many figures opens at once. Text and grid follow the page's colours.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const printing = matchMedia("print");
  const plots = [...document.querySelectorAll(".plot")];
  const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

  function colours(layout) {
    const night = dark.matches && !printing.matches;
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

  function recolour() {
    for (const plot of plots) {
      if (plot.dataset.drawn) Plotly.relayout(plot, colours(plot.layout));
    }
  }

  const near = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
    { rootMargin: "300px" },
  );
  plots.forEach((plot) => near.observe(plot));

  const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 60));
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

  dark.addEventListener("change", recolour);
  addEventListener("beforeprint", () => {
    plots.forEach(draw);
    recolour();
  });
  addEventListener("afterprint", recolour);
})();
