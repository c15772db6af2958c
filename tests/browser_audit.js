// What a reader could stumble over on the page that is open, as lists of words; see test_browser.py.
() => {
  const seen = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility !== "hidden";
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const words = (e) => `${e.tagName} ${(e.innerText || e.alt || e.id || "").trim().slice(0, 40)}`;
  const room = document.documentElement.clientWidth;

  // The nearest box that scrolls sideways, where there is one.
  const box = (e) => {
    for (; e && e !== document.body; e = e.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(e).overflowX)) return e;
    return null;
  };
  const clipped = (e) => {
    const around = box(e);
    if (around) return around.scrollWidth > around.clientWidth + 1 && around.tabIndex < 0;
    const inside = e.tagName === "PRE" && e.scrollWidth > e.clientWidth + 1;
    return inside || e.getBoundingClientRect().right > room + 1;
  };

  // Whether an equation and its number cover each other.
  const covered = (equation) => {
    const number = equation.querySelector(".eqno").getBoundingClientRect();
    const drawn = equation.querySelector("mjx-container").getBoundingClientRect();
    const apart = number.left >= drawn.right - 1 || drawn.left >= number.right - 1;
    return !apart && number.top < drawn.bottom && drawn.top < number.bottom;
  };

  // Contrast by WCAG 2: relative luminances of a text and of the ground behind it.
  const parts = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+(?:e-?\d+)?/g).map(Number);
    return colour.startsWith("color(srgb") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0.5) return colour;
    }
    return [255, 255, 255, 1];
  };
  const pale = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const e = walker.currentNode.parentElement;
    if (!text || !seen(e) || e.closest("script, style, svg, mjx-container, [inert]")) continue;
    const [one, other] = [parts(getComputedStyle(e).color), ground(e)].map(light);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) pale[`${e.tagName}.${e.className}`] ??= `${contrast.toFixed(2)} ${text.slice(0, 30)}`;
  }

  return {
    clipped: all(".bd-article :is(pre, table, img, svg, mjx-container)").filter(clipped).map(words),
    wide: document.documentElement.scrollWidth > room + 1 ? [`${document.documentElement.scrollWidth} px`] : [],
    covered: all("div.math:has(.eqno):has(mjx-container)").filter(covered).map((e) => e.id),
    pale: Object.entries(pale).map((entry) => entry.join(": ")),
    height: document.documentElement.scrollHeight,
  };
};
