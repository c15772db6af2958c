// Pictures of explorers become charts with sliders. Vega lies beside this file; only pages with an explorer fetch it.
(() => {
  const vega = new URL("vega.js", document.currentScript.src);

  const draw = async (figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const chart = figure.querySelector(".chart");
    const picture = chart.querySelector("img");
    if (chart.clientWidth < 620) spec.columns = 1; // panels below each other
    if (!spec.concat) Object.assign(spec, { width: "container", autosize: { type: "fit-x", contains: "padding" } });
    const live = document.createElement("div");
    chart.append(live);
    await vegaEmbed(live, spec, { mode: "vega-lite", actions: false, renderer: "svg" });
    live.querySelector("svg").setAttribute("aria-label", picture.alt);
    picture.remove();
    figure.classList.add("live");
  };

  document.addEventListener("DOMContentLoaded", () => {
    // On a phone figures keep a width at which they can be read, and scroll in a box (book.css).
    const narrow = matchMedia("(max-width: 600px)").matches;
    if (narrow) document.querySelectorAll("figure.align-default").forEach((box) => (box.tabIndex = 0));
    const figures = document.querySelectorAll("figure.explorer");
    if (!figures.length) return;
    const script = document.createElement("script");
    script.src = vega;
    script.onload = () => figures.forEach(draw);
    document.head.append(script);
  });
})();
