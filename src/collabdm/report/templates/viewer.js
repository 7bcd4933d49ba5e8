const view = document.querySelector("dialog");
const big = view.querySelector("img");
const text = view.querySelector("p");

document.addEventListener("click", event => {
  const small = event.target.closest("button.zoom");
  if (small) {
    big.src = small.firstElementChild.src;
    big.alt = text.textContent = small.title;
    view.showModal();
  } else if (view.open) view.close();
});

// a table wider than the page says so, until it was scrolled to its end
for (const wide of document.querySelectorAll(".wide")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "Scroll sideways for more columns →";
  wide.before(hint);
  const show = () => {
    const left = wide.scrollWidth - wide.clientWidth - wide.scrollLeft;
    hint.hidden = wide.scrollWidth <= wide.clientWidth + 1;
    wide.classList.toggle("more", left > 1);
    wide.tabIndex = hint.hidden ? -1 : 0;
  };
  wide.addEventListener("scroll", show);
  new ResizeObserver(show).observe(wide);
  show();
}
