// Opened from a folder, the search page may not fetch the pages it found: their texts come from one script instead.
(() => {
  if (location.protocol !== "file:" || !location.pathname.endsWith("/search.html")) return;
  const root = new URL("..", document.currentScript.src).href; // of the site
  const texts = new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = `${root}_static/texts.js`;
    script.onload = () => resolve(window.pageTexts);
    document.head.append(script);
  });
  window.fetch = async (address) => {
    const page = new URL(address, location.href).href.slice(root.length).split(/[?#]/)[0];
    return new Response(`<div role="main">${(await texts)[page] ?? ""}</div>`);
  };
})();
