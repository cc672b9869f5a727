"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const hovers = matchMedia("(hover: hover)");
  const narrow = matchMedia("(max-width: 560px), (pointer: coarse)");
  const names = { ink: "--ink", muted: "--muted", grid: "--grid", axis: "--rule", blank: "--blank", card: "--card", band: "--band",
    good: "--good", bad: "--bad", "scale-low": "--scale-low", "scale-high": "--scale-high" };

  // "@3/0.18" is the third colour of the palette, with an opacity.
  function color(reference) {
    const [name, opacity] = reference.slice(1).split("/");
    const value = getComputedStyle(root).getPropertyValue(names[name] ?? `--hue-${name}`).trim();
    const alpha = Math.round(255 * (opacity ?? 1)).toString(16).padStart(2, "0");
    return value + (opacity === undefined ? "" : alpha);
  }

  function themed(value, key = "") {
    if (Array.isArray(value)) return value.map((item) => themed(item, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k)]));
    }
    const isColor = typeof value === "string" && value[0] === "@" && /color(scale)?$/.test(key);
    return isColor ? color(value) : value;
  }

  function config() {
    return {
      responsive: true,
      displaylogo: false,
      displayModeBar: hovers.matches && !narrow.matches ? "hover" : false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      showSendToCloud: false,
      plotlyServerURL: "",
      topojsonURL: "",
      typesetMath: false,
    };
  }

  function pressed(plot) {
    const chips = plot.closest("figure").querySelectorAll(".chip[aria-pressed='true']");
    return new Set([...chips].map((chip) => Number(chip.dataset.series)));
  }

  async function draw(plot) {
    const { data, layout } = themed(figures[plot.dataset.figure]);
    const shown = pressed(plot);
    for (const trace of data) if (trace.meta) trace.visible = shown.has(trace.meta.series);
    // A finger that scrolls the page must not drag the figure.
    if (narrow.matches) layout.dragmode = false;
    await Plotly.react(plot, data, layout, config());
  }

  async function drawAll() {
    root.dataset.drawn = "no";
    for (const plot of plots) {
      await draw(plot);
      await new Promise((resolve) => setTimeout(resolve));
    }
    root.dataset.drawn = "yes";
  }

  function toggle(chip) {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    const figure = chip.closest("figure");
    const [chips, count] = [figure.querySelectorAll(".chip"), figure.querySelector(".count")];
    const shown = figure.querySelectorAll(".chip[aria-pressed='true']").length;
    count.querySelector("b").textContent = shown;
    count.hidden = shown === chips.length;
    draw(figure.querySelector(".plot"));
  }

  async function copy(button) {
    const rows = [...button.closest(".table").querySelectorAll("tr")];
    const text = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join("\t")).join("\n");
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.closest(".table").querySelector("table"));
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  document.addEventListener("click", (event) => {
    const chip = event.target.closest(".chip");
    const button = event.target.closest(".copy");
    if (chip) toggle(chip);
    if (button) copy(button);
  });
  dark.addEventListener("change", drawAll);
  drawAll();
})();
