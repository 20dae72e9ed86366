// What the page does in the browser beside Gradio: the address follows what is shown, and charts can be clicked.
window.layertracer = {
  // What the address said when the page was opened; until that is shown, nothing else is written into it.
  asked: location.search,
  isShown: false,

  // Writes controls that differ from the usual into the address. A report that only this visitor has is in no link.
  follow(controls, values, tab) {
    if (!this.isShown) return;
    const url = new URL(location.href);
    const shown = tab ?? url.searchParams.get("tab");
    if (shown) url.searchParams.set("tab", shown);
    const isLocal = (text) => / \((uploaded|diagnosed here)\)( \(\d+\))?$/.test(text);
    controls.forEach(({ name, usual, tab: only }, number) => {
      url.searchParams.delete(name);
      const value = values[number];
      if (value === null || value === undefined || JSON.stringify(value) === JSON.stringify(usual)) return;
      if (only && only !== (shown ?? "see")) return;
      for (const text of [value].flat().map(String)) {
        if (text && !isLocal(text)) url.searchParams.append(name, text);
      }
    });
    history.replaceState(history.state, "", url);
  },

  // Calls back with the label of what is clicked in a chart, now and after it was drawn anew.
  onChartClick(id, callback) {
    document.addEventListener("pointerdown", (event) => {
      const chart = event.target.closest?.(`#${id} .js-plotly-plot`);
      if (!chart || chart.layertracerListens) return;
      chart.layertracerListens = true;
      chart.on("plotly_click", (clicked) => callback(clicked.points[0]));
    }, true);
  },
};

// Arrow keys, Home and End move between tabs.
document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.("[role=tab]");
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (!tab || !(event.key in steps)) return;
  const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")].filter((one) => one.offsetParent);
  const step = steps[event.key];
  const last = tabs.length - 1;
  const place = Number.isFinite(step) ? (tabs.indexOf(tab) + step + tabs.length) % tabs.length : step < 0 ? 0 : last;
  event.preventDefault();
  tabs[place].focus();
  tabs[place].click();
});
